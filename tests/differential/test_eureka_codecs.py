"""The registry beside Netflix's own client and py-eureka-client: what it accepts both decode, whatever else is listed.

Registrations are made of good and odd parts, far more odd ones than any client sends. What the server answers 204 to is
listed together with a plain instance, in JSON and in XML, and given to Netflix's codecs. `REGISTRATIONS` and `SEED` in
the environment try as many more.
"""

import asyncio
import base64
import json
import os
import random
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from backstay.discovery import Credentials, RegistryServer
from backstay.http import HttpClient

VERSION = "2.0.6"
HERE = Path(__file__).parent
CACHE = Path(os.environ.get("BACKSTAY_CACHE") or HERE.parents[1] / ".cache") / f"eureka-client-{VERSION}"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>backstay</groupId><artifactId>codecs</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>com.netflix.eureka</groupId><artifactId>eureka-client-jersey3</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
JSON_CODECS, XML_CODECS = ("LegacyJacksonJson", "JacksonJson"), ("XStreamXml",)
MY_OWN: dict[str, Any] = {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"}
AMAZON: dict[str, Any] = {
    "@class": "com.netflix.appinfo.AmazonInfo",
    "name": "Amazon",
    "metadata": {"instance-id": "i-7", "x": "y"},
}
TEXTS: list[Any] = [
    "a",
    "é😀",
    " x ",
    "<a&b>",
    '"\\',
    "\0",
    "a\tb",
    "a\nb",
    "\r",
    "\x7f",
    "\ufffe",
    "\x85",
    "x" * 300,
    7,
    True,
    [],
    {},
]
NUMBERS: list[Any] = [
    0,
    1,
    -1,
    80,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**63 - 1,
    2**63,
    "8",
    "x",
    "",
    1.5,
    1e300,
    None,
    True,
    [],
    {},
]
KEYS = ["a", "a.b", "a_b", "$a", "@a", "9", "a b", "é", "-a", "<a>", "xml", "@class", "", "a\x01", "a:b"]
ODD: dict[str, list[Any]] = {
    "hostName": TEXTS,
    "ipAddr": TEXTS,
    "sid": TEXTS,
    "asgName": TEXTS,
    "homePageUrl": TEXTS,
    "vipAddress": TEXTS,
    "status": ["UP", "DOWN", "up", "FINE", "", None, 1, []],
    "overriddenStatus": ["UNKNOWN", "OUT_OF_SERVICE", "FINE", "", None, {}],
    "overriddenstatus": ["DOWN", "FINE"],
    "actionType": ["ADDED", "DELETED", "FINE", "", None, 3],
    "port": [*NUMBERS, *({"$": each, "@enabled": "true"} for each in NUMBERS), {"$": 1, "@enabled": "yes"}],
    "securePort": [*NUMBERS, *({"$": each, "@enabled": True} for each in NUMBERS)],
    "countryId": NUMBERS,
    "lastDirtyTimestamp": [*NUMBERS, str(2**63 - 1), str(2**63)],
    "lastUpdatedTimestamp": NUMBERS,
    "isCoordinatingDiscoveryServer": ["true", True, "yes", None, 0],
    "leaseInfo": [{"durationInSecs": each, "renewalIntervalInSecs": each} for each in NUMBERS] + [None, [], "x"],
    "metadata": [{key: text} for key in KEYS for text in TEXTS] + [None, [], "x", {str(n): "v" for n in range(65)}],
    "dataCenterInfo": [
        MY_OWN,
        AMAZON,
        MY_OWN | {"metadata": {}},
        MY_OWN | {"metadata": {"zone": "z"}},
        *(MY_OWN | {"name": name} for name in ("Moon", "Netflix", "Amazon", "myown", "", 7)),
        *(MY_OWN | {"@class": name} for name in ("x.Y", "com.netflix.appinfo.MyDataCenterInfo", "", 7)),
        {"name": "MyOwn"},
        AMAZON | {"metadata": {}},
        AMAZON | {"name": "MyOwn"},
        *(AMAZON | {"metadata": {key: text}} for key in KEYS for text in TEXTS),
        [],
        "MyOwn",
    ],
}

pytestmark = pytest.mark.skipif(
    shutil.which("java") is None or shutil.which("mvn") is None, reason="Netflix's Eureka client needs Java and Maven"
)


@pytest.fixture(scope="module")
def jars() -> Path:
    """The client's jars from Maven Central, fetched once."""
    if not CACHE.exists():
        making = CACHE.with_name(f"{CACHE.name}.{os.getpid()}")
        making.mkdir(parents=True)
        (making / "pom.xml").write_text(POM)
        argv = ["mvn", "-B", "-q", "-ntp", "-f", str(making / "pom.xml"), "dependency:copy-dependencies"]
        subprocess.run([*argv, f"-DoutputDirectory={making}"], check=True, timeout=300)
        try:
            making.rename(CACHE)
        except OSError:  # another run was faster
            shutil.rmtree(making)
    return CACHE


def java(jars: Path, program: str, *arguments: str) -> list[str]:
    options = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", f"{jars}/*"]
    return ["java", *options, str(HERE / program), *arguments]


def registration(chance: random.Random, number: int) -> dict[str, Any]:
    """A good one with one to three odd parts."""
    fields: dict[str, Any] = {
        "instanceId": f"odd-{number}",
        "hostName": "h",
        "app": "ODD",
        "ipAddr": "10.0.0.1",
        "dataCenterInfo": MY_OWN,
    }
    return fields | {name: chance.choice(ODD[name]) for name in chance.sample(list(ODD), chance.randint(1, 3))}


async def accepted(tries: int, seed: int) -> list[tuple[str, bytes, bytes]]:
    """What was answered 204: its text, and the lists that every client would get, in JSON and in XML."""
    chance, found = random.Random(seed), []
    async with RegistryServer(port=0) as server, HttpClient() as http:

        async def call(method: str, path: str, accept: str, body: bytes = b"") -> tuple[int, bytes]:
            headers = [("accept", accept), ("content-type", "application/json")]
            answer = await http.request("127.0.0.1", server.port, method, path, headers=headers, body=body, timeout=20)
            return answer.status, answer.body

        good = {"instanceId": "good", "hostName": "h", "app": "ODD", "ipAddr": "i", "dataCenterInfo": MY_OWN}
        assert (await call("POST", "/eureka/apps/ODD", "", json.dumps({"instance": good}).encode()))[0] == 204
        for number in range(tries):
            text = json.dumps({"instance": registration(chance, number)})
            status, reason = await call("POST", "/eureka/apps/ODD", "", text.encode())
            assert status in (204, 400), (status, text)
            assert (status == 400) == bool(reason)
            if status == 204:
                lists = [(await call("GET", "/eureka/apps", kind))[1] for kind in ("application/json", "*/*")]
                found.append((text, lists[0], lists[1]))
                assert (await call("DELETE", f"/eureka/apps/ODD/odd-{number}", ""))[0] == 200
    return found


async def test_what_is_accepted_every_client_decodes(jars: Path) -> None:
    """With the odd one in the list the codecs find both instances."""
    listed = await accepted(int(os.environ.get("REGISTRATIONS", "600")), int(os.environ.get("SEED", "1")))
    lines = [
        (text, f"{codec} {base64.b64encode(body).decode()}\n")
        for text, in_json, in_xml in listed
        for codecs, body in ((JSON_CODECS, in_json), (XML_CODECS, in_xml))
        for codec in codecs
    ]
    assert len(listed) > 50

    given = "".join(line for _, line in lines)
    ran = await asyncio.to_thread(
        subprocess.run, java(jars, "Codec.java"), input=given, capture_output=True, text=True, timeout=240, check=True
    )

    printed = ran.stdout.splitlines()
    assert len(printed) == len(lines), ran.stderr[-2000:]
    for (text, line), said in zip(lines, printed, strict=True):
        kind, _, ids = said.partition(" ")
        assert kind == "ids", (line.split(" ")[0], text, said)
        own = json.loads(text)["instance"]["instanceId"]
        assert base64.b64decode(ids).decode().split("\n") == ["good", own], (line.split(" ")[0], text)


async def test_what_is_accepted_py_eureka_client_decodes() -> None:
    """It asks with `*/*` and reads XML only."""
    basic = pytest.importorskip("py_eureka_client.eureka_basic", reason="py-eureka-client is not installed")
    for text, _, in_xml in await accepted(600, 2):
        found = basic._build_applications(ElementTree.fromstring(in_xml))
        ids = {each.instanceId for each in found.applications[0].instances}
        assert ids == {"good", json.loads(text)["instance"]["instanceId"]}, text


async def test_netflixs_client_registers_with_the_credential_in_its_url(jars: Path) -> None:
    """Percent-decoded; without one 401, with another application's 403, and it can read every answer."""
    users = [
        {"user": "orders", "passwords": ["p@ss/word%12345"], "apps": ["orders"]},
        {"user": "payments", "passwords": ["payments-password"], "apps": ["payments"]},
    ]
    async with RegistryServer(port=0, credentials=Credentials.read(json.dumps(users), private_reads=True)) as server:
        base = f"127.0.0.1:{server.port}/eureka/"
        who = ("orders:p%40ss%2Fword%2512345@", "", "orders:wrong-password@", "payments:payments-password@")
        process = await asyncio.create_subprocess_exec(
            *java(jars, "Registers.java", *(f"http://{each}{base}" for each in who)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(120):
            printed, errors = await process.communicate()

    expected = ["204 200 200 200", "401 401 401 401", "401 401 401 401", "403 403 200 403"]
    assert printed.decode().splitlines() == expected, errors.decode()[-2000:]
    assert server.statistics().registered == 1
