import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

/** For each URL one client as it comes, which prefers HTTP/2: a POST, a GET and a chunked POST; prints the answers. */
public class Offers {
    private static final String BODY = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

    public static void main(String[] urls) throws Exception {
        for (String url : urls) {
            HttpClient client = HttpClient.newHttpClient();
            HttpRequest.Builder asked = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(30));
            ask(client, asked.POST(BodyPublishers.ofString(BODY)).build());
            ask(client, asked.GET().build());
            BodyPublisher chunked = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(BODY.getBytes()));
            ask(client, asked.POST(chunked).build());
        }
    }

    private static void ask(HttpClient client, HttpRequest request) throws Exception {
        HttpResponse<String> answer = client.send(request, BodyHandlers.ofString());
        System.out.println(answer.statusCode() + " " + answer.version() + " " + answer.body());
    }
}
