"""Classification and wording of Kafka's errors."""

from confluent_kafka import KafkaError, KafkaException

from backstay.messaging.errors import PublishError

RECORD_FAULTS = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.POLICY_VIOLATION,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._INVALID_ARG,
}
PRODUCER_FAULTS = {
    KafkaError._FATAL,
    KafkaError._FENCED,
    KafkaError._STATE,
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    KafkaError.UNKNOWN_PRODUCER_ID,
}


def publish_error(error: KafkaError) -> PublishError:
    """Return the meaning of a producer's error for the record it belongs to."""
    if error.fatal() or error.code() in PRODUCER_FAULTS:
        return PublishError("producer", words(error))
    return PublishError("record" if error.code() in RECORD_FAULTS else "retriable", words(error))


def cause(exception: KafkaException) -> KafkaError:
    """Return the error inside of an exception."""
    inner = exception.args[0]
    return inner if isinstance(inner, KafkaError) else KafkaError(KafkaError._FAIL, str(inner))


def words(error: KafkaError) -> str:
    """Return the error for people: the library's sentence and its code's name."""
    return f"{error.str()} ({error.name()})"
