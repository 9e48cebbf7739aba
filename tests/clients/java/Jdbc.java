// pgjdbc and HikariCP. A step of ../scenario.json is a method; what it tells is JSON, written by hand.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

public class Jdbc {
    static final String HOST = System.getenv("CLIENT_HOST"), PORT = System.getenv("CLIENT_PORT");
    static final String DATABASE = System.getenv("CLIENT_DATABASE"), USER = System.getenv("CLIENT_USER");
    static final String PASSWORD = System.getenv("CLIENT_PASSWORD");  // null through leasehold
    static final String MODE = System.getenv("PGSSLMODE");  // null without TLS
    static final String CA = System.getenv("PGSSLROOTCERT");  // null where nothing is verified
    static final String URL = "jdbc:postgresql://" + HOST + ":" + PORT + "/" + DATABASE + "?user=" + USER
        + (PASSWORD == null ? "" : "&password=" + PASSWORD)
        + (MODE == null ? "" : "&sslmode=" + MODE) + (CA == null ? "" : "&sslrootcert=" + CA);
    static final int LARGE = Integer.parseInt(System.getenv().getOrDefault("LARGE_MB", "1")) << 20;
    static final int WORKERS = 8;
    static final long PAUSE = 200;  // milliseconds, the longest

    interface Act { String on(Connection connection) throws Exception; }

    static Connection connect() throws SQLException { return DriverManager.getConnection(URL); }

    static void step(String name, Act act) {
        try (Connection connection = connect()) {
            System.out.println("{\"step\": \"" + name + "\", \"result\": " + act.on(connection) + "}");
        } catch (Exception error) {
            error.printStackTrace();
            System.out.println("{\"step\": \"" + name + "\", \"failed\": " + quoted(error.toString()) + "}");
        }
    }

    static String quoted(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", " ") + "\"";
    }

    static String quoted(List<String> texts) {
        List<String> all = new ArrayList<>();
        for (String text : texts) all.add(quoted(text));
        return all.toString();
    }

    static String value(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    static void run(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) { statement.execute(sql); }
    }

    static String stateOf(Connection connection, String sql) {
        try {
            run(connection, sql);
            return "none";
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    static void table(Connection connection) throws SQLException {
        run(connection, "DROP TABLE IF EXISTS things");
        run(connection, "CREATE TABLE things (x int PRIMARY KEY)");
    }

    static String who(Connection connection) throws SQLException {
        return quoted(List.of(value(connection, "SELECT current_user"), value(connection, "SELECT current_database()")));
    }

    static String keywords(Connection ignored) throws SQLException {
        Properties words = new Properties();
        words.setProperty("user", USER);
        if (PASSWORD != null) words.setProperty("password", PASSWORD);
        if (MODE != null) words.setProperty("sslmode", MODE);
        if (CA != null) words.setProperty("sslrootcert", CA);
        try (Connection other = DriverManager.getConnection("jdbc:postgresql://" + HOST + ":" + PORT + "/" + DATABASE, words)) {
            return who(other);
        }
    }

    static String prepared(Connection connection) throws SQLException {
        List<Integer> answers = new ArrayList<>();
        try (PreparedStatement statement = connection.prepareStatement("SELECT ? * 2")) {
            // A named statement from its first execution on.
            statement.unwrap(org.postgresql.PGStatement.class).setPrepareThreshold(-1);
            for (int n = 1; n <= 3; n++) {
                statement.setInt(1, n);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    answers.add(rows.getInt(1));
                }
            }
        }
        return answers.toString();
    }

    static String batch(Connection connection) throws SQLException {
        table(connection);
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO things VALUES (?)")) {
            for (int n = 1; n <= 100; n++) {
                statement.setInt(1, n);
                statement.addBatch();
            }
            statement.executeBatch();
        }
        return value(connection, "SELECT sum(x) FROM things");
    }

    static String transaction(Connection connection) throws SQLException {
        table(connection);
        connection.setAutoCommit(false);
        run(connection, "INSERT INTO things VALUES (1)");
        Savepoint savepoint = connection.setSavepoint();
        run(connection, "INSERT INTO things VALUES (2)");
        connection.rollback(savepoint);
        run(connection, "INSERT INTO things VALUES (3)");
        connection.commit();
        run(connection, "INSERT INTO things VALUES (4)");
        connection.rollback();
        return value(connection, "SELECT json_agg(x ORDER BY x) FROM things");
    }

    static String errors(Connection connection) throws SQLException {
        table(connection);
        run(connection, "INSERT INTO things VALUES (1)");
        List<String> states = new ArrayList<>();
        connection.setAutoCommit(false);
        states.add(stateOf(connection, "SELECT 1/0"));
        states.add(stateOf(connection, "SELECT 1"));
        connection.rollback();
        connection.setAutoCommit(true);
        for (String sql : List.of("INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT")) {
            states.add(stateOf(connection, sql));
        }
        return quoted(states);
    }

    /** As bytea, and as a large object, whose calls are function calls of the protocol. */
    static String large(Connection connection) throws Exception {
        byte[] sent = new byte[LARGE];
        for (int at = 0; at < LARGE; at++) sent[at] = (byte) (at % 251);
        boolean same;
        try (PreparedStatement statement = connection.prepareStatement("SELECT ?")) {
            statement.setBytes(1, sent);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                same = Arrays.equals(sent, rows.getBytes(1));
            }
        }
        connection.setAutoCommit(false);
        LargeObjectManager objects = connection.unwrap(PGConnection.class).getLargeObjectAPI();
        long id = objects.createLO();
        LargeObject object = objects.open(id, LargeObjectManager.READWRITE);
        object.write(sent, 0, 1 << 20);
        object.seek(0);
        same &= Arrays.equals(Arrays.copyOf(sent, 1 << 20), object.read(1 << 20));
        connection.rollback();
        return "[" + (LARGE >> 20) + ", " + same + "]";
    }

    static String copy(Connection connection) throws Exception {
        table(connection);
        StringBuilder lines = new StringBuilder();
        for (int n = 1; n <= 10_000; n++) lines.append(n).append('\n');
        var copies = connection.unwrap(PGConnection.class).getCopyAPI();
        long in = copies.copyIn("COPY things FROM STDIN", new ByteArrayInputStream(lines.toString().getBytes()));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        copies.copyOut("COPY things TO STDOUT", out);
        long sum = 0;
        for (String line : out.toString(StandardCharsets.US_ASCII).split("\n")) sum += Long.parseLong(line);
        return List.of(in, sum).toString();
    }

    static String listen(Connection connection) throws Exception {
        run(connection, "LISTEN news");
        try (Connection other = connect()) { run(other, "NOTIFY news, 'said'"); }
        return quoted(connection.unwrap(PGConnection.class).getNotifications(10_000)[0].getParameter());
    }

    static String cursor(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        long sum = 0;
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(100);
            try (ResultSet rows = statement.executeQuery("SELECT * FROM generate_series(1, 1000)")) {
                while (rows.next()) sum += rows.getLong(1);
            }
        }
        return Long.toString(sum);
    }

    static String cancel(Connection connection) throws Exception {
        try (Connection other = connect(); Statement statement = connection.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    while (value(other, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted").equals("0")) {
                        Thread.sleep(50);
                    }
                    statement.cancel();
                } catch (Exception error) {
                    error.printStackTrace();
                }
            });
            canceller.start();
            String state = "none";
            try {
                statement.execute("SELECT pg_advisory_xact_lock(7), pg_sleep(30)");
            } catch (SQLException error) {
                state = error.getSQLState();
            }
            canceller.join();
            return "[" + quoted(state) + ", " + value(connection, "SELECT 1") + "]";
        }
    }

    static String timeout(Connection connection) throws SQLException {
        run(connection, "SET statement_timeout = 500");
        return "[" + quoted(stateOf(connection, "SELECT pg_sleep(30)")) + ", " + value(connection, "SELECT 1") + "]";
    }

    static String types(Connection connection) throws SQLException {
        run(connection, "SET timezone = 'UTC'");
        OffsetDateTime at = OffsetDateTime.parse("2024-02-29T12:34:56.789Z");
        UUID uuid = UUID.fromString("01234567-89ab-cdef-0123-456789abcdef");
        Object[] values = {true, Long.MAX_VALUE, new BigDecimal("12345.6789"), 1.5, "naïve ☃", new byte[] {0, -1},
            Date.valueOf("2024-02-29"), at, uuid};
        String sql = "SELECT concat_ws('|', ?::bool, ?::int8, ?::numeric, ?::float8, ?::text, ?::bytea, ?::date, "
            + "?::timestamptz, ?::uuid, ?::jsonb, ?::int4[], coalesce(?::text, '')) AS line";
        String back = "SELECT ?::bool, ?::int8, ?::numeric, ?::float8, ?::text, ?::bytea, ?::date, ?::timestamptz, ?::uuid, "
            + "?::jsonb, ?::int4[], ?::text";
        String line = null;
        boolean same = true;
        for (String one : List.of(sql, back)) {
            try (PreparedStatement statement = connection.prepareStatement(one)) {
                for (int at_ = 0; at_ < values.length; at_++) statement.setObject(at_ + 1, values[at_]);
                statement.setString(10, "{\"a\": [1, null]}");
                statement.setArray(11, connection.createArrayOf("int4", new Integer[] {1, 2, 3}));
                statement.setNull(12, Types.VARCHAR);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    if (one == sql) {
                        line = rows.getString(1);
                        continue;
                    }
                    for (int n = 0; n < values.length; n++) {
                        Object got = values[n] == at ? rows.getObject(n + 1, OffsetDateTime.class) : rows.getObject(n + 1);
                        same &= got instanceof byte[] bytes ? Arrays.equals(bytes, (byte[]) values[n]) : got.equals(values[n]);
                    }
                    same &= Arrays.equals((Object[]) rows.getArray(11).getArray(), new Integer[] {1, 2, 3});
                    same &= rows.getObject(12) == null;
                }
            }
        }
        return "[" + quoted(line) + ", " + same + "]";
    }

    static String reconnect(Connection connection) throws SQLException {
        String state = stateOf(connection, "SELECT end_session()");
        try (Connection other = connect()) {
            return "[" + quoted(state) + ", " + value(other, "SELECT 1") + "]";
        }
    }

    static HikariDataSource hikari(int size) {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(URL);
        config.setMaximumPoolSize(size);
        return new HikariDataSource(config);
    }

    static String pool(Connection ignored) throws Exception {
        ExecutorService workers = Executors.newFixedThreadPool(4);
        try (HikariDataSource source = hikari(4)) {
            Callable<Integer> work = () -> {
                try (Connection connection = source.getConnection()) { return Integer.parseInt(value(connection, "SELECT 1")); }
            };
            int sum = 0;
            for (Future<Integer> one : workers.invokeAll(java.util.Collections.nCopies(20, work))) sum += one.get();
            return Integer.toString(sum);
        } finally {
            workers.shutdown();
        }
    }

    static volatile boolean stop = false;

    static void workOnPool() throws Exception {
        long[] worked = {0};
        Map<String, Integer> errors = new TreeMap<>();
        try (HikariDataSource source = hikari(WORKERS)) {
            if ("recommended".equals(System.getenv("POOL_SETTINGS"))) {
                // At its start a pool takes no less than 30 s, later any; what is open by then goes by softEvictConnections.
                source.setMaxLifetime((long) (Double.parseDouble(System.getenv("POOL_LIFETIME")) * 1000));
                source.getHikariPoolMXBean().softEvictConnections();
            }
            List<Thread> workers = new ArrayList<>();
            for (int number = 1; number <= WORKERS; number++) {
                int mine = number;
                Thread worker = new Thread(() -> {
                    for (int step = 1; !stop; step++) {
                        try (Connection connection = source.getConnection()) {
                            connection.setAutoCommit(false);
                            value(connection, "SELECT 1");
                            value(connection, "SELECT 2");
                            connection.commit();
                            synchronized (errors) { worked[0]++; }
                        } catch (SQLException error) {
                            synchronized (errors) { errors.merge(error.getSQLState() + "", 1, Integer::sum); }
                        }
                        try { Thread.sleep(PAUSE * ((mine * 7 + step * 3) % 10) / 10); } catch (InterruptedException ignored) { }
                    }
                });
                worker.start();
                workers.add(worker);
            }
            System.out.println("working");
            while (System.in.read() >= 0) { }
            stop = true;
            for (Thread worker : workers) worker.join();
        }
        List<String> told = new ArrayList<>();
        errors.forEach((state, count) -> told.add(quoted(state) + ": " + count));
        System.out.println("{\"worked\": " + worked[0] + ", \"errors\": {" + String.join(", ", told) + "}}");
    }

    public static void main(String[] args) throws Exception {
        if (args.length == 1) {
            workOnPool();
            return;
        }
        String hikari = System.getenv("HIKARI_VERSION");
        step("version", c -> quoted("pgjdbc " + c.getMetaData().getDriverVersion() + ", HikariCP " + hikari));
        step("url", Jdbc::who);
        step("keywords", Jdbc::keywords);
        step("identity", connection -> quoted(value(connection, "SELECT identity()")));
        step("prepared", Jdbc::prepared);
        step("batch", Jdbc::batch);
        step("transaction", Jdbc::transaction);
        step("errors", Jdbc::errors);
        step("large", Jdbc::large);
        step("copy", Jdbc::copy);
        step("notify", Jdbc::listen);
        step("cursor", Jdbc::cursor);
        step("cancel", Jdbc::cancel);
        step("timeout", Jdbc::timeout);
        step("types", Jdbc::types);
        step("reconnect", Jdbc::reconnect);
        step("pool", Jdbc::pool);
    }
}
