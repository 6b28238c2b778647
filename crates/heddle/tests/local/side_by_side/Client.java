// Java's client: an upload that is refused before its end, then calls on a kept connection and on one each.
// Prints what came back.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.TreeMap;

public class Client {
    static final int UPLOAD = 64 << 20;

    static HttpClient client() {
        return HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    }

    static void tell(String call, HttpResponse<String> response) {
        var fields = new TreeMap<>(response.headers().map());
        fields.remove("date");
        // How long a connection may idle is said by the hop that keeps it.
        fields.remove("keep-alive");
        System.out.println(call + " " + response.statusCode() + " " + fields + " " + response.body());
    }

    public static void main(String[] words) throws Exception {
        var small = HttpRequest.newBuilder(URI.create(words[0]));
        var upload = small.POST(BodyPublishers.ofByteArray(new byte[UPLOAD])).build();
        var refused = client().send(upload, BodyHandlers.ofString());
        var closes = refused.headers().firstValue("connection").orElse("").equals("close");
        System.out.println("upload " + refused.statusCode() + (closes ? " closes" : " stays"));
        var kept = client();
        for (int number = 0; number < 10; number++) {
            var client = number < 5 ? kept : client();
            var uri = URI.create(words[1] + number);
            tell("get", client.send(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofString()));
            var post = HttpRequest.newBuilder(uri).POST(BodyPublishers.ofString("some body")).build();
            tell("post", client.send(post, BodyHandlers.ofString()));
        }
    }
}
