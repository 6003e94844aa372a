import java.util.Map;
import java.util.TreeMap;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.curator.x.discovery.ServiceCache;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.details.ServiceCacheListener;

/**
 * Finds and watches the instances of a service through Apache Curator's own service discovery.
 * Prints one line of ID=ADDRESS:PORT for each state it sees, until standard input is closed.
 */
public class Lookup {
  public static void main(String[] args) throws Exception {
    if (args.length != 2) {
      System.err.println("usage: Lookup ZOOKEEPER SERVICE");
      System.exit(2);
    }
    try (CuratorFramework client =
            CuratorFrameworkFactory.newClient(args[0], new ExponentialBackoffRetry(100, 10))) {
      client.start();
      try (ServiceDiscovery<Map> discovery =
              ServiceDiscoveryBuilder.builder(Map.class)
                  .client(client)
                  .basePath("/mammoth/services")
                  .build()) {
        discovery.start();
        try (ServiceCache<Map> cache =
                discovery.serviceCacheBuilder().name(args[1]).build()) {
          cache.addListener(
              new ServiceCacheListener() {
                @Override
                public void cacheChanged() {
                  print(cache);
                }

                @Override
                public void stateChanged(CuratorFramework framework, ConnectionState state) {}
              });
          cache.start();
          print(cache);
          while (System.in.read() >= 0) {
            // Until nobody wants to know any more.
          }
        }
      }
    }
  }

  private static synchronized void print(ServiceCache<Map> cache) {
    Map<String, String> line = new TreeMap<>();
    for (ServiceInstance<Map> instance : cache.getInstances()) {
      Object weight = instance.getPayload() == null ? null : instance.getPayload().get("weight");
      line.put(
          instance.getId(),
          instance.getAddress() + ":" + instance.getPort() + " weight=" + weight);
    }
    System.out.println(line);
    System.out.flush();
  }
}
