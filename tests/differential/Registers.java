import com.netflix.appinfo.InstanceInfo;
import com.netflix.appinfo.MyDataCenterInstanceConfig;
import com.netflix.appinfo.providers.EurekaConfigBasedInstanceInfoProvider;
import com.netflix.discovery.shared.transport.EurekaHttpClient;
import com.netflix.discovery.shared.transport.EurekaHttpResponse;
import com.netflix.discovery.shared.resolver.DefaultEndpoint;
import com.netflix.discovery.DefaultEurekaClientConfig;
import com.netflix.discovery.shared.transport.jersey3.Jersey3TransportClientFactories;
import java.util.Collections;
import java.util.Optional;

/** Registers, renews, fetches and cancels with Netflix's client at each URL, and prints the statuses, or the errors. */
public class Registers {
    public static void main(String[] urls) throws Exception {
        System.setProperty("eureka.name", "orders");
        MyDataCenterInstanceConfig config = new MyDataCenterInstanceConfig();
        InstanceInfo info = new EurekaConfigBasedInstanceInfoProvider(config).get();
        for (String url : urls) {
            // A factory for each: its clients share what they send, and so a credential, too.
            var factory = new Jersey3TransportClientFactories().newTransportClientFactory(
                new DefaultEurekaClientConfig(), Collections.emptyList(), info, Optional.empty(), Optional.empty());
            EurekaHttpClient client = factory.newClient(new DefaultEndpoint(url));
            StringBuilder said = new StringBuilder();
            said.append(status(() -> client.register(info)));
            said.append(status(() -> client.sendHeartBeat("ORDERS", info.getId(), info, null)));
            said.append(status(() -> client.getApplications()));
            said.append(status(() -> client.cancel("ORDERS", info.getId())));
            System.out.println(said.toString().trim());
        }
        System.exit(0);
    }

    interface Call { EurekaHttpResponse<?> make() throws Exception; }

    static String status(Call call) {
        try {
            return call.make().getStatusCode() + " ";
        } catch (Throwable error) {
            return error.toString().replaceAll("\\s+", "_") + " ";
        }
    }
}
