import io.github.resilience4j.common.CompositeCustomizer;
import io.github.resilience4j.common.CustomizerWithName;
import io.github.resilience4j.springboot3.bulkhead.autoconfigure.BulkheadProperties;
import io.github.resilience4j.springboot3.bulkhead.autoconfigure.ThreadPoolBulkheadProperties;
import io.github.resilience4j.springboot3.circuitbreaker.autoconfigure.CircuitBreakerProperties;
import io.github.resilience4j.springboot3.ratelimiter.autoconfigure.RateLimiterProperties;
import io.github.resilience4j.springboot3.retry.autoconfigure.RetryProperties;
import io.github.resilience4j.springboot3.timelimiter.autoconfigure.TimeLimiterProperties;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.springframework.boot.context.config.ConfigDataEnvironmentPostProcessor;
import org.springframework.boot.context.properties.source.ConfigurationPropertySources;
import org.springframework.core.env.MapPropertySource;
import org.springframework.core.env.MutablePropertySources;
import org.springframework.core.env.StandardEnvironment;
import org.springframework.core.env.SystemEnvironmentPropertySource;

/**
 * Shows what Spring Boot and Resilience4j bind: for each line `file TAB profiles TAB NAME=value …` of its input, the
 * instances of the file, one a line, sorted, and a line with a dot.
 */
public class Binder {
    static final Throwable[] ERRORS = {
        new java.io.IOException(), new IllegalArgumentException(), new java.util.concurrent.TimeoutException(),
        new RuntimeException()};

    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            List<String> seen;
            try {
                seen = instances(environment(line.split("\t", -1)));
            } catch (Throwable error) {
                seen = List.of("refused");
                System.err.println(line + ": " + error);
            }
            seen.forEach(System.out::println);
            System.out.println(".");
            System.out.flush();
        }
    }

    static StandardEnvironment environment(String[] parts) {
        StandardEnvironment environment = new StandardEnvironment();
        MutablePropertySources sources = environment.getPropertySources();
        sources.remove(StandardEnvironment.SYSTEM_PROPERTIES_PROPERTY_SOURCE_NAME);
        Map<String, Object> variables = new HashMap<>();
        for (int i = 2; i < parts.length; i++)
            if (!parts[i].isEmpty())
                variables.put(parts[i].substring(0, parts[i].indexOf('=')), parts[i].substring(parts[i].indexOf('=') + 1));
        sources.replace(StandardEnvironment.SYSTEM_ENVIRONMENT_PROPERTY_SOURCE_NAME, new SystemEnvironmentPropertySource(
            StandardEnvironment.SYSTEM_ENVIRONMENT_PROPERTY_SOURCE_NAME, variables));
        Map<String, Object> given = new HashMap<>();
        given.put("spring.config.location", "file:" + parts[0]);
        if (!parts[1].isEmpty()) given.put("spring.profiles.active", parts[1]);
        sources.addFirst(new MapPropertySource("given", given));
        ConfigurationPropertySources.attach(environment);
        ConfigDataEnvironmentPostProcessor.applyTo(environment);
        ConfigurationPropertySources.attach(environment);
        return environment;
    }

    static <T extends CustomizerWithName> CompositeCustomizer<T> none() {
        return new CompositeCustomizer<>(List.of());
    }

    interface Shown<T> {
        String of(String name) throws Exception;
    }

    static <T> void each(List<String> seen, String kind, Map<String, T> instances, Shown<T> shown) throws Exception {
        for (String name : new TreeMap<>(instances).keySet()) seen.add(kind + " " + name + " " + shown.of(name));
    }

    static <T> T bound(StandardEnvironment environment, String name, Class<T> type) {
        return org.springframework.boot.context.properties.bind.Binder.get(environment)
            .bind("resilience4j." + name, type).orElse(null);
    }

    static List<String> instances(StandardEnvironment environment) throws Exception {
        List<String> seen = new ArrayList<>();
        CircuitBreakerProperties breakers = bound(environment, "circuitbreaker", CircuitBreakerProperties.class);
        if (breakers != null) each(seen, "circuitbreaker", breakers.getInstances(), name -> {
            var c = breakers.createCircuitBreakerConfig(name, breakers.getInstances().get(name), none());
            var wait = c.getWaitIntervalFunctionInOpenState();
            StringBuilder errors = new StringBuilder();
            for (Throwable error : ERRORS)
                errors.append(c.getIgnoreExceptionPredicate().test(error) ? "i"
                    : c.getRecordExceptionPredicate().test(error) ? "r" : "-");
            return String.format("rate=%.1f slow=%d/%.1f window=%s:%d min=%d half=%d/%d>%s wait=%d,%d,%d auto=%s %s %s",
                c.getFailureRateThreshold(), c.getSlowCallDurationThreshold().toMillis(), c.getSlowCallRateThreshold(),
                c.getSlidingWindowType(), c.getSlidingWindowSize(), c.getMinimumNumberOfCalls(),
                c.getPermittedNumberOfCallsInHalfOpenState(), c.getMaxWaitDurationInHalfOpenState().toMillis(),
                c.getTransitionToStateAfterWaitDuration(), wait.apply(1), wait.apply(2), wait.apply(3),
                c.isAutomaticTransitionFromOpenToHalfOpenEnabled(), c.getInitialState(), errors);
        });
        RetryProperties retries = bound(environment, "retry", RetryProperties.class);
        if (retries != null) each(seen, "retry", retries.getInstances(), name -> {
            var c = retries.createRetryConfig(name, none());
            var wait = c.getIntervalBiFunction();
            StringBuilder errors = new StringBuilder();
            for (Throwable error : ERRORS) errors.append(c.getExceptionPredicate().test(error) ? "r" : "-");
            return String.format("attempts=%d wait=%d,%d,%d fail=%s %s", c.getMaxAttempts(), wait.apply(1, null),
                wait.apply(2, null), wait.apply(3, null), c.isFailAfterMaxAttempts(), errors);
        });
        RateLimiterProperties limiters = bound(environment, "ratelimiter", RateLimiterProperties.class);
        if (limiters != null) each(seen, "ratelimiter", limiters.getInstances(), name -> {
            var c = limiters.createRateLimiterConfig(limiters.getInstances().get(name), none(), name);
            return String.format("limit=%d period=%d wait=%d", c.getLimitForPeriod(), c.getLimitRefreshPeriod().toNanos(),
                c.getTimeoutDuration().toMillis());
        });
        BulkheadProperties bulkheads = bound(environment, "bulkhead", BulkheadProperties.class);
        if (bulkheads != null) each(seen, "bulkhead", bulkheads.getInstances(), name -> {
            var c = bulkheads.createBulkheadConfig(bulkheads.getInstances().get(name), none(), name);
            return String.format("max=%d wait=%d", c.getMaxConcurrentCalls(), c.getMaxWaitDuration().toMillis());
        });
        ThreadPoolBulkheadProperties pools =
            bound(environment, "thread-pool-bulkhead", ThreadPoolBulkheadProperties.class);
        if (pools != null) each(seen, "threadpoolbulkhead", pools.getInstances(), name -> {
            var c = pools.createThreadPoolBulkheadConfig(name, none());
            return String.format("max=%d queue=%d", c.getMaxThreadPoolSize(), c.getQueueCapacity());
        });
        TimeLimiterProperties limits = bound(environment, "timelimiter", TimeLimiterProperties.class);
        if (limits != null) each(seen, "timelimiter", limits.getInstances(), name -> String.format("timeout=%d",
            limits.createTimeLimiterConfig(name, limits.getInstances().get(name), none())
                .getTimeoutDuration().toMillis()));
        return seen;
    }
}
