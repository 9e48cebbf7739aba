// A whole app: POST /orders?item=tea&amount=3 takes an order and answers with what all orders come to. It knows
// JDBC_URL, in which there is no password, and nothing of Vault, leases or tokens. Without leasehold it would need a
// login, a loop that renews two leases, a second pool for each new credential, and a lock around all of them.
//
//    javac -cp 'lib/*' App.java && JDBC_URL='jdbc:postgresql://localhost:6432/myapp?user=app' java -cp 'lib/*:.' App
//    curl -X POST 'localhost:8080/orders?item=tea&amount=3'
//
// In lib/ are pgjdbc, HikariCP and slf4j-api. ADDR is another address than localhost:8080, POOL_LIFETIME another age of
// connections than 900 seconds.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.stream.Collectors;
import java.util.stream.Stream;

public class App {
    static HikariDataSource pool;

    public static void main(String[] args) throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(System.getenv("JDBC_URL"));
        config.setMaximumPoolSize(8);
        // Less than a third of the lease's default_ttl: then leasehold has no connection of this pool left to close.
        config.setMaxLifetime(Long.parseLong(or("POOL_LIFETIME", "900")) * 1000);
        pool = new HikariDataSource(config);
        try (Connection connection = pool.getConnection()) {
            connection.createStatement().execute("CREATE TABLE IF NOT EXISTS orders "
                + "(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, amount bigint NOT NULL)");
        }
        String[] address = or("ADDR", "localhost:8080").split(":(?=\\d+$)");
        HttpServer server = HttpServer.create(new InetSocketAddress(address[0], Integer.parseInt(address[1])), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/orders", App::handle);
        server.start();
    }

    static String place(String item, long amount) throws SQLException {
        try (Connection connection = pool.getConnection()) {
            connection.setAutoCommit(false);  // and what is not committed is rolled back by the pool
            PreparedStatement insert = connection.prepareStatement("INSERT INTO orders (item, amount) VALUES (?, ?) RETURNING id");
            insert.setString(1, item);
            insert.setLong(2, amount);
            ResultSet order = insert.executeQuery();
            order.next();
            PreparedStatement select = connection.prepareStatement("SELECT sum(amount), session_user FROM orders WHERE item = ?");
            select.setString(1, item);
            ResultSet sum = select.executeQuery();
            sum.next();
            // The role is for those who want to see rotations.
            String answer = String.format("{\"id\": %d, \"total\": %d, \"role\": \"%s\"}",
                order.getLong(1), sum.getLong(1), sum.getString(2));
            connection.commit();
            return answer;
        }
    }

    static void handle(HttpExchange exchange) throws IOException {
        int status = 200;
        String body;
        try {
            Map<String, String> wanted = Stream.of(exchange.getRequestURI().getQuery().split("&"))
                .map(pair -> pair.split("=", 2)).collect(Collectors.toMap(pair -> pair[0], pair -> pair[1]));
            body = place(wanted.get("item"), Long.parseLong(wanted.get("amount")));
        } catch (Exception error) {
            status = 500;
            body = error.toString();
        }
        exchange.sendResponseHeaders(status, body.getBytes().length);
        exchange.getResponseBody().write(body.getBytes());
        exchange.close();
    }

    static String or(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }
}
