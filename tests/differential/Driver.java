import io.github.resilience4j.circuitbreaker.CallNotPermittedException;
import io.github.resilience4j.circuitbreaker.CircuitBreaker;
import io.github.resilience4j.circuitbreaker.CircuitBreakerConfig;
import io.github.resilience4j.circuitbreaker.IllegalStateTransitionException;
import io.github.resilience4j.circuitbreaker.event.CircuitBreakerOnStateTransitionEvent;
import io.github.resilience4j.core.IntervalFunction;
import io.github.resilience4j.retry.Retry;
import io.github.resilience4j.retry.RetryConfig;
import io.github.resilience4j.retry.internal.RetryImpl;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** Runs sequences of operations on the real Resilience4j; a line in is a sequence, a line out what was seen after each. */
public class Driver {
    static class Boom extends RuntimeException {}
    static class Ignored extends RuntimeException {}
    static class Unrecorded extends RuntimeException {}

    static class Hands extends Clock {
        long millis = 1_000_000;

        public ZoneId getZone() { return ZoneOffset.UTC; }
        public Clock withZone(ZoneId zone) { return this; }
        public Instant instant() { return Instant.ofEpochMilli(millis); }
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        PrintStream out = new PrintStream(System.out, false);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] parts = line.split(";");
            out.println(parts[0].startsWith("retry") ? retry(parts) : new Run(parts[0]).steps(parts));
            out.flush();
        }
    }

    static Map<String, String> options(String text) {
        Map<String, String> found = new HashMap<>();
        for (String each : text.split(",")) {
            int at = each.indexOf('=');
            if (at > 0) found.put(each.substring(0, at), each.substring(at + 1));
        }
        return found;
    }

    /** One circuit breaker, its clock and the calls in flight. */
    static class Run {
        final Hands clock = new Hands();
        final CircuitBreaker breaker;
        final List<Long> flight = new ArrayList<>();
        final StringBuilder events = new StringBuilder();

        Run(String text) {
            Map<String, String> o = options(text);
            long wait = Long.parseLong(o.get("wait"));
            boolean grows = o.get("grows").equals("1");
            breaker = CircuitBreaker.of("x", CircuitBreakerConfig.custom()
                .failureRateThreshold(Float.parseFloat(o.get("failure")))
                .slowCallRateThreshold(Float.parseFloat(o.get("slow")))
                .slowCallDurationThreshold(Duration.ofMillis(Long.parseLong(o.get("over"))))
                .slidingWindowType(CircuitBreakerConfig.SlidingWindowType.valueOf(o.get("type")))
                .slidingWindowSize(Integer.parseInt(o.get("size")))
                .minimumNumberOfCalls(Integer.parseInt(o.get("min")))
                .permittedNumberOfCallsInHalfOpenState(Integer.parseInt(o.get("probes")))
                .waitIntervalFunctionInOpenState(grows
                    ? IntervalFunction.ofExponentialBackoff(wait, 2.0, 8 * wait) : IntervalFunction.of(wait))
                .initialState(CircuitBreaker.State.valueOf(o.get("initial")))
                .recordExceptions(Boom.class).ignoreExceptions(Ignored.class)
                .recordResult(result -> result.equals("bad"))
                .clock(clock)
                .currentTimestampFunction(hands -> hands.millis() * 1_000_000, TimeUnit.NANOSECONDS)
                .build());
            breaker.getEventPublisher().onEvent(event -> {
                events.append(' ').append(event.getEventType());
                if (event instanceof CircuitBreakerOnStateTransitionEvent move)
                    events.append(':').append(move.getStateTransition().getFromState())
                        .append('>').append(move.getStateTransition().getToState());
            });
        }

        String steps(String[] parts) {
            StringBuilder seen = new StringBuilder(look());
            for (int i = 1; i < parts.length; i++) {
                String note = step(parts[i].charAt(0), parts[i].substring(1));
                seen.append(';').append(note).append(look());
            }
            return seen.toString();
        }

        String step(char op, String argument) {
            try {
                switch (op) {
                    case 'a' -> { breaker.acquirePermission(); flight.add(clock.millis); }
                    case 't' -> clock.millis += Long.parseLong(argument);
                    case 'R' -> breaker.reset();
                    case 'o' -> breaker.transitionToOpenStateFor(Duration.ofMillis(Long.parseLong(argument)));
                    case 'T' -> move(argument);
                    default -> { if (!flight.isEmpty()) end(op, Integer.parseInt(argument)); }
                }
                return "";
            } catch (CallNotPermittedException refused) {
                return "refused ";
            } catch (IllegalStateTransitionException illegal) {
                return "illegal ";
            } catch (RuntimeException other) {
                return other.getClass().getSimpleName() + ' ';
            }
        }

        void end(char op, int which) {
            long duration = (clock.millis - flight.remove(which % flight.size())) * 1_000_000;
            switch (op) {
                case 's' -> breaker.onResult(duration, TimeUnit.NANOSECONDS, "good");
                case 'b' -> breaker.onResult(duration, TimeUnit.NANOSECONDS, "bad");
                case 'e' -> breaker.onError(duration, TimeUnit.NANOSECONDS, new Boom());
                case 'i' -> breaker.onError(duration, TimeUnit.NANOSECONDS, new Ignored());
                case 'u' -> breaker.onError(duration, TimeUnit.NANOSECONDS, new Unrecorded());
                case 'r' -> breaker.releasePermission();
                default -> throw new IllegalStateException("unknown operation " + op);
            }
        }

        void move(String state) {
            switch (state) {
                case "CLOSED" -> breaker.transitionToClosedState();
                case "OPEN" -> breaker.transitionToOpenState();
                case "HALF_OPEN" -> breaker.transitionToHalfOpenState();
                case "DISABLED" -> breaker.transitionToDisabledState();
                case "FORCED_OPEN" -> breaker.transitionToForcedOpenState();
                default -> breaker.transitionToMetricsOnlyState();
            }
        }

        String look() {
            CircuitBreaker.Metrics now = breaker.getMetrics();
            String seen = String.format("%s %.3f %.3f %d %d %d %d %d%s", breaker.getState(), now.getFailureRate(),
                now.getSlowCallRate(), now.getNumberOfBufferedCalls(), now.getNumberOfFailedCalls(),
                now.getNumberOfSlowCalls(), now.getNumberOfSlowFailedCalls(), now.getNumberOfNotPermittedCalls(), events);
            events.setLength(0);
            return seen;
        }
    }

    /** One retry around calls that end as told, call after call: s succeeds, b gives a bad result, e and i raise. */
    static String retry(String[] parts) {
        Map<String, String> o = options(parts[0]);
        List<Long> waits = new ArrayList<>();
        RetryImpl.setSleepFunction(waits::add);
        StringBuilder seen = new StringBuilder();
        Retry retry = Retry.of("x", RetryConfig.<String>custom()
            .maxAttempts(Integer.parseInt(o.get("attempts")))
            .intervalFunction(IntervalFunction.ofExponentialBackoff(Long.parseLong(o.get("wait")), 1.5, 4000L))
            .retryExceptions(Boom.class).ignoreExceptions(Ignored.class)
            .retryOnResult(result -> result.equals("bad"))
            .failAfterMaxAttempts(o.get("fail").equals("1"))
            .build());
        retry.getEventPublisher().onEvent(event -> seen.append(' ').append(event.getEventType()));
        for (int i = 1; i < parts.length; i++) {
            int[] calls = {0};
            String outcomes = parts[i];
            waits.clear();
            String ended;
            try {
                ended = retry.executeSupplier(() -> {
                    switch (outcomes.charAt(Math.min(calls[0]++, outcomes.length() - 1))) {
                        case 's': return "good";
                        case 'b': return "bad";
                        case 'i': throw new Ignored();
                        default: throw new Boom();
                    }
                });
            } catch (RuntimeException error) {
                ended = error.getClass().getSimpleName();
            }
            Retry.Metrics now = retry.getMetrics();
            seen.append(String.format(" %s %d %s %d %d %d %d;", ended, calls[0], waits,
                now.getNumberOfSuccessfulCallsWithoutRetryAttempt(), now.getNumberOfSuccessfulCallsWithRetryAttempt(),
                now.getNumberOfFailedCallsWithoutRetryAttempt(), now.getNumberOfFailedCallsWithRetryAttempt()));
        }
        return seen.toString();
    }
}
