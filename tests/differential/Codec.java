import com.netflix.appinfo.InstanceInfo;
import com.netflix.discovery.converters.wrappers.CodecWrappers;
import com.netflix.discovery.shared.Application;
import com.netflix.discovery.shared.Applications;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.TreeSet;

/** Reads lines of a codec's name and an answer in base64; prints the ids that the codec finds in it, or its error. */
public class Codec {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line;
        while ((line = in.readLine()) != null) {
            String[] parts = line.split(" ");
            String text = new String(Base64.getDecoder().decode(parts[1]), StandardCharsets.UTF_8);
            try {
                Applications all = CodecWrappers.getDecoder(parts[0]).decode(text, Applications.class);
                TreeSet<String> ids = new TreeSet<>();
                for (Application application : all.getRegisteredApplications())
                    for (InstanceInfo each : application.getInstances()) ids.add(each.getId());
                String joined = String.join("\n", ids);
                out.println("ids " + Base64.getEncoder().encodeToString(joined.getBytes(StandardCharsets.UTF_8)));
            } catch (Throwable error) {
                while (error.getCause() != null) error = error.getCause();
                out.println("failed " + error.toString().replaceAll("\\s+", " "));
            }
        }
    }
}
