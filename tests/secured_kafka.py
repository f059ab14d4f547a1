"""An Apache Kafka that takes TLS with SASL and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.certificates import Certificates, make_certificates

from backstay.dev import apache
from backstay.dev.program import spawn, stop, wait_until
from backstay.messaging import KafkaAccess, KafkaBroker

PASSWORD = "a-password-of-the-broker"
SECURED = """
listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SASL_SSL://127.0.0.1:{port}
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
username="broker" password="{password}" user_broker="{password}" user_shop="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
"""


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker that takes TLS with SASL only."""

    bootstrap: str
    certificates: Certificates

    def environ(self, **changes: str) -> dict[str, str]:
        return {
            "KAFKA": self.bootstrap,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_USERNAME": "shop",
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_CA": str(self.certificates.ca),
            **changes,
        }

    def broker(self, **changes: str) -> KafkaBroker:
        return KafkaBroker(self.bootstrap, options=KafkaAccess.read(self.environ(**changes)).client_options())


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if not apache.is_available():
        pytest.skip("needs Java and Maven")
    apache.fetch()
    folder = tmp_path_factory.mktemp("kafka-tls")
    certificates = make_certificates(folder)
    keystore = folder / "keystore.pem"
    keystore.write_bytes(certificates.key.read_bytes() + certificates.certificate.read_bytes())
    node = apache.create(folder / "node", log=folder / "kafka.log")
    properties = node.folder / "server.properties"
    kept = [line for line in properties.read_text().splitlines() if not line.startswith(("listen", "advert", "inter."))]
    more = SECURED.format(
        port=node.port, controller=node.controller, password=PASSWORD, keystore=keystore, ca=certificates.ca
    )
    properties.write_text("\n".join(kept) + more)
    program = node.program()
    process = spawn(program)
    try:
        wait_until(node.is_ready, process, program, timeout=60)
        yield Secured(node.bootstrap, certificates)
    finally:
        stop(process, program)
