"""What every client must live through, as scenario.mjs has it for Node.

The database has three todos of alice's and three of bob's. There are 16 clients, and PgBouncer has 4 connections
to the server, so whatever one request leaves behind is what another one finds.
"""

import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import psycopg

CLIENTS = 16
DATABASE_URL = os.environ["DATABASE_URL"]
USERS = ["alice", "bob", None]
KINDS = ["rs256", "es256", "jose"]


def token(user, kind="rs256"):
    """One user's token of this kind; issuers.mjs has the kinds."""
    with urllib.request.urlopen(f"{os.environ['ISSUERS']}/token?user={user}&kind={kind}") as answer:
        return answer.read().decode()


def tokens_of_each_kind():
    return {user: [token(user, kind) for kind in KINDS] for user in ["alice", "bob"]} | {None: [None] * 3}


def provider(change):
    """The OpenID provider begins to sign with new keys (rotate), or stops publishing the old ones (retire)."""
    urllib.request.urlopen(f"{os.environ['ISSUERS']}/{change}", data=b"").close()


def admin(sql):
    """Runs statements as a superuser, and not through the pooler. admin.sql has functions for it."""
    with psycopg.connect(os.environ["ADMIN_URL"], autocommit=True) as db:
        db.execute(sql)


class Scenario:
    """An application adds, with `db` for whatever its library works on:

    as_user(token)        a context manager: a transaction of the token's user; None: of no one
    user_id(db)           auth.user_id()
    todos(db)             [(owner, task)]
    add(db, task, owner)  without an owner it is the user's own
    run(db, sql)          any other statement; its first value
    present(db, token)    another token in the middle of a transaction
    savepoint(db)         a context manager: a part of a transaction that is rolled back by itself
    idle()                auth.user_id() outside of any transaction
    said(error)           the psycopg error in what the library raises
    """

    Error = psycopg.Error

    @classmethod
    def setUpClass(cls):
        cls.tokens = tokens_of_each_kind()

    def sees_their_own(self, db, user):
        """It is this user, and sees their rows: all of them, and no others."""
        self.assertEqual(self.user_id(db), user)
        expected = [(user, f"task {n}") for n in (1, 2, 3)] if user else []
        self.assertEqual(self.todos(db), expected)

    def request(self, user, kind=0):
        with self.as_user(self.tokens[user][kind]) as db:
            self.sees_their_own(db, user)
            return self.value(db, "SELECT pg_backend_pid()")

    def at_once(self, *calls):
        with ThreadPoolExecutor(CLIENTS) as pool:
            return [future.result() for future in [pool.submit(*call) for call in calls]]

    def all_is_well(self):
        """On every connection there is, once more: somebody, and no one between transactions."""
        self.at_once(*((self.request, USERS[i % 3], i % 2) for i in range(CLIENTS)))
        self.assertEqual(self.at_once(*((self.idle,) for _ in range(CLIENTS))), [None] * CLIENTS)

    def refused(self, sqlstate, message, call, *arguments):
        with self.assertRaises(self.Error) as raised:
            call(*arguments)
        error = self.said(raised.exception)
        self.assertEqual((error.sqlstate, error.diag.message_primary), (sqlstate, message))
        return error

    def said(self, error):
        return error

    def in_a_transaction(self, presented, work):
        with self.as_user(presented) as db:
            return work(db)

    def test_two_users_see_their_own_rows_and_no_one_sees_any(self):
        for kind in range(3):
            for user in USERS:
                self.request(user, kind)
        self.all_is_well()

    def test_a_row_is_its_users_and_cannot_be_given_to_another(self):
        alice = self.tokens["alice"][0]
        with self.as_user(alice) as db:
            self.add(db, "mine")
            self.assertEqual(self.todos(db)[3:], [("alice", "mine")])
        self.request("bob")
        with self.as_user(alice) as db:
            self.value(db, "DELETE FROM todos WHERE task = 'mine' RETURNING 1")
        policy = 'new row violates row-level security policy for table "todos"'
        for presented in [alice, None]:
            theirs = lambda db: self.add(db, "theirs", "bob")
            self.refused("42501", policy, self.in_a_transaction, presented, theirs)
        self.all_is_well()

    def test_an_error_in_the_middle_of_a_transaction_hands_nothing_on(self):
        def takes_too_long(db):
            self.value(db, "SELECT set_config('statement_timeout', '20ms', true)")
            self.value(db, "SELECT pg_sleep(10)")

        def is_cancelled(db):
            pid = self.value(db, "SELECT pg_backend_pid()")
            Thread(target=admin, args=[f"SELECT admin.wake({pid})"]).start()
            self.value(db, "SELECT pg_sleep(10)")

        def forged(db):
            self.present(db, token("bob", "forged"))
            self.user_id(db)

        unique = 'duplicate key value violates unique constraint "todos_owner_task_key"'
        check = 'new row for relation "todos" violates check constraint "todos_task_check"'
        for sqlstate, message, happens in [
            ("23505", unique, lambda db: self.add(db, "task 1")),
            ("23514", check, lambda db: self.add(db, "")),
            ("22012", "division by zero", lambda db: self.value(db, "SELECT 1 / 0")),
            ("57014", "canceling statement due to statement timeout", takes_too_long),
            ("57014", "canceling statement due to user request", is_cancelled),
            ("28000", "invalid JWT signature", forged),
        ]:

            def fails(db, happens=happens):
                self.add(db, "never")
                happens(db)

            with self.subTest(message):
                alice = self.tokens["alice"][0]
                failure = (self.refused, sqlstate, message, self.in_a_transaction, alice, fails)
                self.at_once(failure)
                self.all_is_well()
                # Many at once; the two wait for each other, because of the key that they would both write.
                others = [(self.request, ["bob", None][i % 2]) for i in range(30)]
                self.at_once(failure, failure, *others)
                self.all_is_well()

    def test_after_a_savepoint_is_rolled_back_the_user_is_who_it_was(self):
        def part(db):
            with self.savepoint(db):
                self.present(db, self.tokens["bob"][0])
                self.sees_their_own(db, "bob")
                self.value(db, "SELECT 1 / 0")

        with self.as_user(self.tokens["alice"][0]) as db:
            self.refused("22012", "division by zero", part, db)
            self.sees_their_own(db, "alice")
        self.all_is_well()

    def test_a_token_that_is_not_accepted_is_refused_and_nobody_comes_of_it(self):
        for kind, message, stage in [
            ("expired", "Token used after it has expired", "time: "),
            ("forged", "invalid JWT signature", "signature: "),
            ("elsewhere", "JWT audience is not accepted", "policy: "),
            ("stranger", "unknown JWT issuer", "key: "),
        ]:
            presented = token("alice", kind)
            error = self.refused("28000", message, self.in_a_transaction, presented, self.user_id)
            self.assertTrue(error.diag.message_detail.startswith(stage), error.diag.message_detail)
            self.assertNotIn(presented, json.dumps([str(error), error.diag.message_hint]))
            self.all_is_well()
        self.refused("28000", "invalid JWT encoding", self.in_a_transaction, "no token", self.user_id)

    def test_16_clients_at_once_over_4_connections_of_the_server(self):
        requests = [(self.request, USERS[i % 3], i % 2) for i in range(20 * CLIENTS)]
        self.assertLessEqual(len(set(self.at_once(*requests))), 4)

    def test_the_provider_rotates_its_keys_while_requests_come_in(self):
        admin("SELECT admin.a_minute_later()")
        old = self.tokens["alice"][0]
        over = Event()

        def traffic(user):
            while not over.is_set():
                self.request(user)

        with ThreadPoolExecutor(6) as pool:
            running = [pool.submit(traffic, user) for user in USERS * 2]
            try:
                provider("rotate")
                type(self).tokens = tokens_of_each_kind()
                # The first of them has the keys fetched, and waits for them.
                self.at_once(*((self.request, "alice") for _ in range(CLIENTS)))
                with self.as_user(old) as db:
                    self.sees_their_own(db, "alice")
                provider("retire")
                admin("SELECT * FROM auth.refresh('oidc')")
                self.refused("28000", "no key fits the JWT", self.in_a_transaction, old, self.user_id)
            finally:
                over.set()
            for future in running:
                future.result()
        self.all_is_well()
