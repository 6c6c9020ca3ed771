// JDBC, with auth.login(). What it must live through is in ../node/scenario.mjs; here is the part of it that takes
// a driver of its own kind.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.util.PSQLException;

class Jdbc {
    static final int CLIENTS = 16;
    static final String[] USERS = {"alice", "bob", null};

    // --- The application ---

    interface Work<T> {
        T in(Connection db) throws Exception;
    }

    /** A transaction of the token's user; null: of no one. */
    static <T> T withUser(Connection db, String token, Work<T> work) throws Exception {
        db.setAutoCommit(false);
        try {
            present(db, token);
            T result = work.in(db);
            db.commit();
            return result;
        } catch (Exception | Error error) {
            db.rollback();
            throw error;
        } finally {
            db.setAutoCommit(true);
        }
    }

    static void present(Connection db, String token) throws SQLException {
        try (var login = db.prepareStatement("SELECT auth.login(?)")) {
            login.setString(1, token);
            login.execute();
        }
    }

    static String value(Connection db, String sql) throws SQLException {
        try (var statement = db.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    static void run(Connection db, String sql) throws SQLException {
        try (var statement = db.createStatement()) {
            statement.execute(sql);
        }
    }

    static List<String> todos(Connection db) throws SQLException {
        var todos = new ArrayList<String>();
        String sql = "SELECT owner, task FROM todos ORDER BY id";
        try (var select = db.prepareStatement(sql); ResultSet rows = select.executeQuery()) {
            while (rows.next()) todos.add(rows.getString(1) + ": " + rows.getString(2));
        }
        return todos;
    }

    // --- What is around it ---

    static Connection connect(String address) throws SQLException {
        // postgres://role@host:port/database. Before its version 1.21, PgBouncer does not keep track of prepared
        // statements.
        URI uri = URI.create(System.getenv(address));
        String place = uri.getHost() + ":" + uri.getPort() + uri.getPath();
        return DriverManager.getConnection(
                "jdbc:postgresql://" + place + "?prepareThreshold=0&user=" + uri.getUserInfo());
    }

    static String ask(String method, String path) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(System.getenv("ISSUERS") + path));
        request.method(method, BodyPublishers.noBody());
        var answer = HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new AssertionError(path + ": " + answer.body());
        return answer.body();
    }

    /** One user's token of this kind; issuers.mjs has the kinds. */
    static String token(String user, String kind) throws Exception {
        return user == null ? null : ask("GET", "/token?user=" + user + "&kind=" + kind);
    }

    static void equal(Object expected, Object actual) {
        if (!Objects.equals(expected, actual)) {
            throw new AssertionError("expected " + expected + ", found " + actual);
        }
    }

    interface Action {
        void run() throws Exception;
    }

    static void refused(String sqlstate, String message, Action action) throws Exception {
        try {
            action.run();
        } catch (PSQLException error) {
            var said = error.getServerErrorMessage();
            equal(sqlstate + " " + message, said.getSQLState() + " " + said.getMessage());
            return;
        }
        throw new AssertionError("should have been refused: " + message);
    }

    /** It is this user, and sees their rows: all of them, and no others. The process id of the backend. */
    static String seesTheirOwn(Connection db, String user) throws SQLException {
        equal(user, value(db, "SELECT auth.user_id()"));
        var expected = new ArrayList<String>();
        for (int n = 1; user != null && n <= 3; n++) expected.add(user + ": task " + n);
        equal(expected, todos(db));
        return value(db, "SELECT pg_backend_pid()");
    }

    /** Users come and go on 16 connections; between transactions each is nobody. The backends they met. */
    static Set<String> allIsWell(int rounds) throws Exception {
        String[] tokens = {token("alice", "rs256"), token("bob", "es256"), null};
        Set<String> backends = ConcurrentHashMap.newKeySet();
        var threads = Executors.newFixedThreadPool(CLIENTS);
        var running = new ArrayList<Future<Void>>();
        for (int i = 0; i < CLIENTS; i++) {
            int first = i;
            Callable<Void> client = () -> {
                try (Connection db = connect("DATABASE_URL")) {
                    for (int round = first; round < first + rounds; round++) {
                        int who = round % 3;
                        backends.add(withUser(db, tokens[who], it -> seesTheirOwn(it, USERS[who])));
                        equal(null, value(db, "SELECT auth.user_id()"));
                    }
                }
                return null;
            };
            running.add(threads.submit(client));
        }
        threads.shutdown();
        for (var client : running) client.get();
        return backends;
    }

    // --- The tests ---

    static void clientsShareFourConnectionsOfTheServer(Connection db) throws Exception {
        Set<String> backends = allIsWell(20);
        if (backends.size() > 4) throw new AssertionError(backends);
    }

    static void anErrorInTheMiddleOfATransactionHandsNothingOn(Connection db) throws Exception {
        String alice = token("alice", "rs256");
        String forged = token("bob", "forged");
        record Failure(String sqlstate, String message, Work<Void> work) {
            static Failure of(String sqlstate, String message, String sql) {
                return new Failure(sqlstate, message, it -> {
                    Jdbc.run(it, sql);
                    return null;
                });
            }
        }
        List<Failure> failures = List.of(
                Failure.of("23505", "duplicate key value violates unique constraint \"todos_owner_task_key\"",
                        "INSERT INTO todos (task) VALUES ('task 1')"),
                Failure.of("23514", "new row for relation \"todos\" violates check constraint \"todos_task_check\"",
                        "INSERT INTO todos (task) VALUES ('')"),
                Failure.of("22012", "division by zero", "SELECT 1 / 0"),
                Failure.of("57014", "canceling statement due to statement timeout",
                        "SET LOCAL statement_timeout = '20ms'; SELECT pg_sleep(10)"),
                new Failure("57014", "canceling statement due to user request", it -> {
                    String wake = "SELECT admin.wake(" + value(it, "SELECT pg_backend_pid()") + ")";
                    var thread = new Thread(() -> {
                        try (Connection admin = connect("ADMIN_URL")) {
                            run(admin, wake);
                        } catch (SQLException error) {
                            throw new AssertionError(error);
                        }
                    });
                    thread.start();
                    run(it, "SELECT pg_sleep(10)");
                    return null;
                }),
                new Failure("28000", "invalid JWT signature", it -> {
                    present(it, forged);
                    return null;
                }));
        for (Failure failure : failures) {
            refused(failure.sqlstate, failure.message, () -> withUser(db, alice, it -> {
                run(it, "INSERT INTO todos (task) VALUES ('never')");
                return failure.work.in(it);
            }));
            allIsWell(2);
        }
    }

    static void afterASavepointIsRolledBackTheUserIsWhoItWas(Connection db) throws Exception {
        String bob = token("bob", "jose");
        withUser(db, token("alice", "es256"), it -> {
            Savepoint savepoint = it.setSavepoint();
            present(it, bob);
            seesTheirOwn(it, "bob");
            refused("22012", "division by zero", () -> run(it, "SELECT 1 / 0"));
            it.rollback(savepoint);
            return seesTheirOwn(it, "alice");
        });
    }

    static void aTokenThatIsNotAcceptedIsRefusedAndNobodyComesOfIt(Connection db) throws Exception {
        String[][] wrong = {
            {"expired", "Token used after it has expired"},
            {"forged", "invalid JWT signature"},
            {"elsewhere", "JWT audience is not accepted"},
            {"stranger", "unknown JWT issuer"},
        };
        for (String[] kind : wrong) {
            String presented = token("alice", kind[0]);
            refused("28000", kind[1], () -> withUser(db, presented, it -> {
                throw new AssertionError("no statement follows a token that is refused");
            }));
            allIsWell(1);
        }
    }

    static void theProviderRotatesItsKeys(Connection db) throws Exception {
        String old = token("alice", "rs256");
        try (Connection admin = connect("ADMIN_URL")) {
            withUser(db, old, it -> seesTheirOwn(it, "alice"));
            run(admin, "SELECT admin.a_minute_later()");
            ask("POST", "/rotate");
            String rotated = token("alice", "rs256");
            withUser(db, rotated, it -> seesTheirOwn(it, "alice"));
            withUser(db, old, it -> seesTheirOwn(it, "alice"));
            ask("POST", "/retire");
            run(admin, "SELECT * FROM auth.refresh('oidc')");
            refused("28000", "no key fits the JWT", () -> withUser(db, old, it -> seesTheirOwn(it, "alice")));
            withUser(db, rotated, it -> seesTheirOwn(it, "alice"));
        }
        allIsWell(2);
    }

    interface Test {
        void run(Connection db) throws Exception;
    }

    static void test(String name, Test test) throws Exception {
        try (Connection db = connect("DATABASE_URL")) {
            test.run(db);
        } catch (Exception | Error error) {
            System.out.println("FAILED: " + name);
            throw error;
        }
        System.out.println("ok: " + name);
    }

    public static void main(String[] arguments) throws Exception {
        test("16 clients share 4 connections of the server", Jdbc::clientsShareFourConnectionsOfTheServer);
        test("an error in the middle of a transaction hands nothing on",
                Jdbc::anErrorInTheMiddleOfATransactionHandsNothingOn);
        test("after a savepoint is rolled back the user is who it was",
                Jdbc::afterASavepointIsRolledBackTheUserIsWhoItWas);
        test("a token that is not accepted is refused, and nobody comes of it",
                Jdbc::aTokenThatIsNotAcceptedIsRefusedAndNobodyComesOfIt);
        test("the provider rotates its keys", Jdbc::theProviderRotatesItsKeys);
    }
}
