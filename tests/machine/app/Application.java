import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;

/**
 * Stands in for systems-engineer-interview.jar: `java -jar … server` listens on localhost:8080, answers 200 on every
 * path, and echoes the request as it arrived, so that a test sees which headers came through nginx.
 */
public class Application {
    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 1 || !arguments[0].equals("server")) {
            System.err.println("usage: java -jar systems-engineer-interview.jar server");
            System.exit(2);
        }
        HttpServer server = HttpServer.create(new InetSocketAddress("localhost", 8080), 0);
        server.createContext("/", exchange -> {
            StringBuilder echo = new StringBuilder();
            echo.append(exchange.getRequestMethod()).append(' ').append(exchange.getRequestURI()).append('\n');
            exchange.getRequestHeaders().forEach((name, values) ->
                values.forEach(value -> echo.append(name).append(": ").append(value).append('\n')));
            byte[] body = echo.toString().getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().set("Content-Type", "text/plain");
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        System.out.println("listening on localhost:8080 as " + System.getProperty("user.name"));
    }
}
