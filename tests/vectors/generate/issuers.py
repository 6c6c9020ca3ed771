"""Key sets and tokens in the shape of known issuers, signed by PyJWT: prints tests/vectors/issuers.json.

`section` is the heading in docs/providers.md whose INSERT registers the issuer; `names` stands in place of the
capitals there, and `change` is an UPDATE that the section describes. The claims follow the page that `source` names. Every run makes fresh keys; the private ones are
thrown away. See README.md beside this file.
"""

import base64
import json
import os

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

EXP, IAT = 4102444800, 1700000000


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    def __init__(self, algorithm: str, kid: str, **members):
        self.alg, self.kid = algorithm, kid
        self.key = {
            "RS256": lambda: rsa.generate_private_key(65537, 2048),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
            "HS256": lambda: os.urandom(32),
        }[algorithm]()
        if algorithm == "HS256":
            public = {"kty": "oct", "k": b64url(self.key)}
        else:
            public = jwt.get_algorithm_by_name(algorithm).to_jwk(self.key.public_key(), as_dict=True)
            public.pop("key_ops", None)
        self.jwk = public | {"kid": kid} | members

    def token(self, claims: dict, **headers) -> str:
        return jwt.encode(claims, self.key, algorithm=self.alg, headers={name: value for name, value in ({"kid": self.kid} | headers).items() if value})


def sig(alg: str, kid: str, **members) -> Key:
    return Key(alg, kid, use="sig", alg=alg, **members)


def issuer(name, section, source, names, keys, tokens, extra=(), change=None, secret=None):
    return {
        "name": name,
        "change": change and f"UPDATE auth.providers SET {change}",
        "k": secret and b64url(secret),
        "section": section,
        "source": source,
        "names": names,
        "jwks": {"keys": [key.jwk for key in keys] + list(extra)},
        "tokens": [
            {"token": key.token(claims, **headers), "claims": claims} | expected
            for key, claims, headers, expected in tokens
        ],
    }


def accepted(user_id, role="authenticated", row=None, **more):
    return {"user_id": user_id, "role": role, "row": row or {"user_id": user_id}} | more


def refused(line):
    return {"refused": line}


UUID = "0188a1b2-0000-7000-8000-0000000000ab"
TIMES = {"iat": IAT, "exp": EXP}


def main() -> None:
    out = []
    clerk = sig("RS256", "ins_2")
    base = {"iss": "https://calm-fox-1.clerk.accounts.dev", "azp": "https://app.example.com", "sub": "user_1", "sid": "sess_1", "nbf": IAT} | TIMES
    out.append(issuer(
        "Clerk", "Clerk", "https://clerk.com/docs/guides/sessions/session-tokens",
        {"INSTANCE": "calm-fox-1", "APP.EXAMPLE.COM": "app.example.com"}, [clerk],
        [
            (clerk, base | {"v": 2, "o": {"id": "org_1", "rol": "admin", "slg": "one"}}, {"typ": "JWT", "cat": "cl_B7"},
             accepted("user_1", org_id="org_1", org_role="admin")),
            (clerk, base | {"org_id": "org_1", "org_role": "org:member", "org_permissions": ["org:a:read"]}, {},
             accepted("user_1", org_id="org_1", org_role="member", permissions=["org:a:read"])),
            (clerk, base | {"azp": "https://other.example.com"}, {}, refused("JWT authorized party is not accepted")),
        ]))
    template = base | {"role": "authenticated", "aud": "postgres", "azp": "https://app.example.com"}
    out.append(issuer(
        "Clerk, a template with role and audience", "Clerk", "https://clerk.com/docs/guides/sessions/jwt-templates",
        {"INSTANCE": "calm-fox-1", "APP.EXAMPLE.COM": "app.example.com"}, [clerk],
        [
            (clerk, template, {}, accepted("user_1")),
            (clerk, template | {"role": "admin"}, {}, refused("JWT role is not accepted")),
            (clerk, template | {"aud": "other"}, {}, refused("JWT audience is not accepted")),
        ], change="audience = '{postgres}', default_role = NULL"))
    workos = sig("RS256", "sso_oidc_key_pair_1", x5c=["MIIB"], **{"x5t#S256": "abc"})
    base = {"iss": "https://api.workos.com/user_management/client_1", "sub": "user_01", "sid": "session_01", "jti": "01J"} | TIMES
    out.append(issuer(
        "WorkOS AuthKit", "WorkOS AuthKit", "https://workos.com/docs/reference/authkit/session-tokens",
        {"CLIENT_ID": "client_1"}, [workos],
        [
            (workos, base | {"org_id": "org_01", "role": "admin", "roles": ["admin"], "permissions": ["posts:write"]}, {},
             accepted("user_01", org_id="org_01", org_role="admin", permissions=["posts:write"])),
            (workos, base | {"iss": "https://api.workos.com"}, {}, refused("unknown JWT issuer")),
        ]))
    out.append(issuer(
        "WorkOS AuthKit, iss without a path", "WorkOS AuthKit", "https://workos.com/docs/reference/authkit/session-tokens",
        {"CLIENT_ID": "client_1"}, [workos],
        [(workos, base | {"iss": "https://api.workos.com", "act": {"sub": "admin@example.com"}}, {}, accepted("user_01"))],
        change="issuer = 'https://api.workos.com'"))
    auth0 = sig("RS256", "a0", x5t="abc", x5c=["MIIB"])
    base = {"iss": "https://acme.auth0.com/", "sub": "auth0|1", "aud": ["https://api.example.com", "https://acme.auth0.com/userinfo"], "azp": "c1"} | TIMES
    out.append(issuer(
        "Auth0", "Auth0", "https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles",
        {"TENANT": "acme", "API.EXAMPLE.COM": "api.example.com"}, [auth0],
        [
            (auth0, base | {"scope": "openid read:a", "org_id": "org_1"}, {},
             accepted("auth0|1", org_id="org_1", permissions=["openid", "read:a"])),
            (auth0, base | {"aud": "https://acme.auth0.com/userinfo"}, {}, refused("JWT audience is not accepted")),
        ]))
    claim = "https://app.example.com/role"
    out.append(issuer(
        "Auth0, a role in a claim of one's own, permissions", "Auth0", "https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles",
        {"TENANT": "acme", "API.EXAMPLE.COM": "api.example.com"}, [auth0],
        [
            (auth0, base | {claim: "authenticated", "scope": "openid", "permissions": ["read:a", "write:a"]}, {},
             accepted("auth0|1", permissions=["read:a", "write:a"])),
            (auth0, base | {claim: "postgres"}, {}, refused("JWT role is not accepted")),
            (auth0, base, {}, refused("JWT role is not accepted")),
        ], change=f"role_claim = '{{{claim}}}', default_role = NULL"))
    supabase = sig("ES256", "sb", key_ops=["verify"], ext=True)
    legacy = Key("HS256", "hs")
    base = {"iss": "https://abc.supabase.co/auth/v1", "sub": UUID, "aud": "authenticated", "role": "authenticated", "aal": "aal1", "session_id": UUID, "is_anonymous": False, "app_metadata": {"provider": "email"}, "user_metadata": {}} | TIMES
    out.append(issuer(
        "Supabase", "Supabase", "https://supabase.com/docs/guides/auth/jwt-fields",
        {"PROJECT": "abc"}, [supabase],
        [
            (supabase, base, {}, accepted(UUID, row={"uid": UUID})),
            # The row with the shared secret, which tokens had no kid for.
            (legacy, base, {"kid": None}, accepted(UUID, row={"uid": UUID})),
            (Key("HS256", "hs"), base, {"kid": None}, refused("invalid JWT signature")),
            (supabase, base | {"role": "service_role"}, {}, refused("JWT role is not accepted")),
        ], secret=legacy.key))
    secret, public = Key("HS256", "hs", alg="HS256"), sig("ES256", "es", key_ops=["verify"])
    base = base | {"iss": "https://supabase.example.com/auth/v1"}
    anon = {"iss": "supabase", "role": "anon", "iat": IAT, "exp": EXP}
    out.append(issuer(
        "Supabase, self-hosted", "Supabase, self-hosted", "https://supabase.com/docs/guides/self-hosting/self-hosted-auth-keys",
        {"SUPABASE.EXAMPLE.COM": "supabase.example.com"}, [secret, public],
        [
            (secret, base, {}, accepted(UUID, row={"uid": UUID})),
            (public, base, {}, accepted(UUID, row={"uid": UUID})),
            (secret, anon, {}, {"user_id": None, "role": "anon", "row": None}),
            (secret, anon | {"role": "service_role"}, {}, refused("JWT role is not accepted")),
            (public, anon, {}, refused("no key fits the JWT")),
        ]))
    neon = Key("EdDSA", UUID, alg="EdDSA")
    origin = "https://ep-calm-1.neonauth.eu-central-1.aws.neon.tech"
    out.append(issuer(
        "Neon Auth", "Neon Auth", "https://neon.com/docs/auth/guides/plugins/jwt",
        {"EP-NAME": "ep-calm-1", "REGION": "eu-central-1"}, [neon],
        [(neon, {"iss": origin, "aud": origin, "sub": UUID, "id": UUID, "role": "authenticated", "email": "a@example.com"} | TIMES, {},
          accepted(UUID, row={"uid": UUID}))]))
    stack = Key("ES256", "st")
    iss = f"https://api.stack-auth.com/api/v1/projects/{UUID}"
    user = {"iss": iss, "aud": UUID, "sub": UUID, "project_id": UUID, "branch_id": "main", "role": "authenticated", "selected_team_id": None} | TIMES
    out.append(issuer(
        "Stack Auth", "Stack Auth", "https://docs.stack-auth.com/docs/concepts/jwt",
        {"PROJECT_ID": UUID}, [stack],
        [
            (stack, user, {}, accepted(UUID, row={"uid": UUID})),
            (stack, user | {"iss": iss.replace("/projects/", "/projects-anonymous-users/"), "aud": f"{UUID}:anon", "is_anonymous": True}, {}, refused("unknown JWT issuer")),
            (stack, user | {"aud": f"{UUID}:restricted"}, {}, refused("JWT audience is not accepted")),
        ]))
    firebase = sig("RS256", "fb")
    out.append(issuer(
        "Firebase", "Firebase", "https://firebase.google.com/docs/auth/admin/verify-id-tokens",
        {"PROJECT": "shop"}, [sig("RS256", "fb0"), firebase],
        [
            (firebase, {"iss": "https://securetoken.google.com/shop", "aud": "shop", "sub": "uid1", "user_id": "uid1", "auth_time": IAT, "firebase": {"sign_in_provider": "password"}} | TIMES, {},
             accepted("uid1")),
            (firebase, {"iss": "https://securetoken.google.com/other", "aud": "other", "sub": "uid1"} | TIMES, {}, refused("unknown JWT issuer")),
        ]))
    cognito = sig("RS256", "cg")
    iss = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_1"
    access = {"iss": iss, "sub": UUID, "client_id": "c1", "token_use": "access", "scope": "openid", "username": "ada", "cognito:groups": ["staff"]} | TIMES
    out.append(issuer(
        "Cognito", "Cognito", "https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html",
        {"REGION": "eu-west-1", "POOL_ID": "eu-west-1_1", "CLIENT_ID": "c1"}, [cognito, sig("RS256", "cg2")],
        [
            (cognito, access, {}, accepted(UUID, permissions=["openid"])),
            (cognito, access | {"client_id": "c2"}, {}, refused("JWT authorized party is not accepted")),
        ]))
    names = {"REGION": "eu-west-1", "POOL_ID": "eu-west-1_1", "CLIENT_ID": "c1"}
    identity = {"iss": iss, "sub": UUID, "aud": "c1", "token_use": "id", "cognito:username": "ada", "cognito:groups": ["staff"], "auth_time": IAT} | TIMES
    source = "https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html"
    out.append(issuer(
        "Cognito, ID tokens", "Cognito", source, names, [cognito],
        [
            (cognito, identity, {}, accepted(UUID)),
            (cognito, identity | {"aud": "c2"}, {}, refused("JWT audience is not accepted")),
            (cognito, access, {}, refused("JWT audience is not accepted")),
        ], change="audience = '{c1}', authorized_parties = NULL"))
    groups = lambda *names: access | {"cognito:groups": list(names)}
    out.append(issuer(
        "Cognito, groups as roles", "Cognito", source, names, [cognito],
        [
            (cognito, groups("staff", "authenticated"), {}, accepted(UUID)),
            (cognito, groups("anon", "authenticated"), {}, accepted(UUID)),
            (cognito, groups("anon"), {}, accepted(UUID, "anon")),
            (cognito, groups("staff"), {}, refused("JWT role is not accepted")),
            (cognito, groups(), {}, refused("JWT role is not accepted")),
        ], change="role_claim = '{cognito:groups}', allowed_roles = '{authenticated,anon}', default_role = NULL"))
    tenant = "11111111-2222-3333-4444-555555555555"
    v2, other = f"https://login.microsoftonline.com/{tenant}/v2.0", "99999999-2222-3333-4444-555555555555"
    entra = Key("RS256", "en", use="sig", x5t="en", x5c=["MIIB"], issuer="https://login.microsoftonline.com/{tenantid}/v2.0")
    foreign = Key("RS256", "xx", use="sig", issuer="https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0")
    base = {"iss": v2, "aud": "app1", "sub": "s1", "oid": UUID, "tid": tenant, "azp": "c1", "scp": "Files.Read", "ver": "2.0", "nbf": IAT} | TIMES
    out.append(issuer(
        "Entra", "Entra", "https://learn.microsoft.com/en-us/entra/identity-platform/access-tokens",
        {"TENANT_ID": tenant, "APPLICATION_ID": "app1"}, [entra, foreign],
        [
            (entra, base, {}, accepted("s1", permissions=["Files.Read"])),
            (entra, base | {"tid": other}, {}, refused("no key fits the JWT")),
            (foreign, base, {}, refused("no key fits the JWT")),
            (entra, base | {"iss": f"https://sts.windows.net/{tenant}/", "ver": "1.0"}, {}, refused("unknown JWT issuer")),
        ]))
    v1 = Key("RS256", "en", use="sig", x5t="en", x5c=["MIIB"])
    old = {"iss": f"https://sts.windows.net/{tenant}/", "ver": "1.0", "appid": "c1", "aud": "app1", "sub": "s1", "tid": tenant, "scp": "Files.Read", "roles": ["anon"]} | TIMES
    names = {"TENANT_ID": tenant, "APPLICATION_ID": "app1"}
    first = f"issuer = 'https://sts.windows.net/{tenant}/'"
    source = "https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference"
    out.append(issuer(
        "Entra, version 1", "Entra", source, names, [v1],
        [
            (v1, old, {"x5t": "en"}, accepted("s1", permissions=["Files.Read"])),
            (v1, base, {}, refused("unknown JWT issuer")),
        ], change=first))
    # The keys of version 2 say that they are for version 2.
    out.append(issuer("Entra, version 1 with the keys of version 2", "Entra", source, names, [entra], [(entra, old, {}, refused("no key fits the JWT"))], change=first))
    out.append(issuer(
        "Entra, application roles", "Entra", source, names, [entra],
        [
            (entra, base | {"roles": ["Task.Read", "anon"]}, {}, accepted("s1", "anon")),
            (entra, base | {"roles": ["Task.Read"]}, {}, refused("JWT role is not accepted")),
        ], change="role_claim = '{roles}', allowed_roles = '{anon}', default_role = NULL"))
    google = sig("RS256", "gg")
    out.append(issuer(
        "Google", "Google", "https://developers.google.com/identity/openid-connect/openid-connect",
        {"CLIENT_ID": "1-a.apps.googleusercontent.com"}, [google, sig("RS256", "gg2")],
        [(google, {"iss": "https://accounts.google.com", "aud": "1-a.apps.googleusercontent.com", "azp": "1-a.apps.googleusercontent.com", "sub": "110169484474386276334", "email": "a@example.com"} | TIMES, {},
          accepted("110169484474386276334"))]))
    keycloak = sig("RS256", "kc", x5c=["MIIB"], x5t="abc")
    encryption = Key("RS256", "kc-enc", use="enc", alg="RSA-OAEP")
    out.append(issuer(
        "Keycloak", "Keycloak", "https://www.keycloak.org/docs/latest/server_admin/",
        {"KEYCLOAK": "id.example.com", "REALM": "shop", "CLIENT": "web"}, [encryption, keycloak],
        [(keycloak, {"iss": "https://id.example.com/realms/shop", "aud": "account", "sub": UUID, "typ": "Bearer", "azp": "web", "acr": "1", "scope": "openid profile", "realm_access": {"roles": ["offline_access", "editor"]}} | TIMES, {},
          accepted(UUID, permissions=["openid", "profile"]))]))
    access = {"iss": "https://id.example.com/realms/shop", "aud": "account", "sub": UUID, "typ": "Bearer", "azp": "web"} | TIMES
    realm = lambda *names: access | {"realm_access": {"roles": list(names)}}
    out.append(issuer(
        "Keycloak, realm roles", "Keycloak", "https://www.keycloak.org/docs/latest/server_admin/",
        {"KEYCLOAK": "id.example.com", "REALM": "shop", "CLIENT": "web"}, [encryption, keycloak],
        [
            (keycloak, realm("offline_access", "anon", "authenticated"), {}, accepted(UUID)),
            (keycloak, realm("anon"), {}, accepted(UUID, "anon")),
            (keycloak, realm("offline_access", "postgres"), {}, refused("JWT role is not accepted")),
            (keycloak, access, {}, refused("JWT role is not accepted")),
            (encryption, realm("authenticated"), {}, refused("no key fits the JWT")),
        ], change="role_claim = '{realm_access,roles}', allowed_roles = '{authenticated,anon}', default_role = NULL"))
    okta = sig("RS256", "ok")
    out.append(issuer(
        "Okta", "Okta", "https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/",
        {"DOMAIN": "acme"}, [okta],
        [(okta, {"ver": 1, "jti": "AT.1", "iss": "https://acme.okta.com/oauth2/default", "aud": "api://default", "cid": "c1", "uid": "00u1", "sub": "a@example.com", "scp": ["openid", "notes.read"]} | TIMES, {},
          accepted("a@example.com", permissions=["openid", "notes.read"]))]))
    zitadel = Key("RS256", "zi", use="sig", alg="RS256")
    out.append(issuer(
        "Zitadel", "Zitadel", "https://zitadel.com/docs/apis/openidoauth/claims",
        {"INSTANCE": "acme", "PROJECT_ID": "p1"}, [zitadel],
        [(zitadel, {"iss": "https://acme.zitadel.cloud", "aud": ["c1", "p1"], "sub": "77776025198584418", "urn:zitadel:iam:org:project:roles": {"authenticated": {"1": "acme.zitadel.cloud"}}} | TIMES, {},
          accepted("77776025198584418"))]))
    better = Key("EdDSA", "ba")
    out.append(issuer(
        "Better Auth", "Better Auth", "https://www.better-auth.com/docs/plugins/jwt",
        {"APP.EXAMPLE.COM": "app.example.com"}, [better],
        [(better, {"iss": "https://app.example.com", "aud": "https://app.example.com", "sub": "u1", "id": "u1", "email": "a@example.com"} | TIMES, {},
          accepted("u1"))]))
    kubernetes = sig("RS256", "k8")
    account = "system:serviceaccount:shop:worker"
    out.append(issuer(
        "Kubernetes service accounts", "Kubernetes service accounts", "https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/",
        {}, [kubernetes],
        [(kubernetes, {"iss": "https://kubernetes.default.svc.cluster.local", "aud": ["postgres"], "sub": account, "jti": UUID, "nbf": IAT, "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "worker"}}} | TIMES, {},
          accepted(account))]))
    github = Key("RS256", "gh", use="sig", alg="RS256", x5c=["MIIB"], x5t="abc")
    claims = {"iss": "https://token.actions.githubusercontent.com", "aud": "postgres", "sub": "repo:acme/shop:ref:refs/heads/main", "repository": "acme/shop", "ref": "refs/heads/main", "nbf": IAT, "jti": UUID} | TIMES
    out.append(issuer(
        "GitHub Actions", "GitHub Actions", "https://docs.github.com/en/actions/reference/security/oidc",
        {}, [github],
        [(github, claims, {"typ": "JWT", "x5t": "abc"}, accepted(claims["sub"], row={"repository": "acme/shop"}))]))
    print(json.dumps(out, indent=1))


main()
