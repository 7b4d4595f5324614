"""Three replicas behind a balancer, on one bucket and one Redis, through everything that happens to them: each 201 is
there with the right bytes, nothing else has changed, and a client that tries again gets to the end."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.certificates import Authority
from tests.conformance.http_client import Connection, chunked, request_head
from tests.conformance.identity_provider import IdentityProvider
from tests.conformance.oci.content import OCI_MANIFEST, digest_of
from tests.conformance.replicas.ledger import Snapshot, check_bucket, check_pulls
from tests.conformance.replicas.pushing import Caller, Image, Pusher
from tests.conformance.replicas.replica_set import COUNT, ReplicaSet, replica_set
from tests.conformance.runtime.reloading import wait_until

pytestmark = pytest.mark.xdist_group("replicas")

MIB = 1 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def identity_provider(authority: Authority) -> Iterator[IdentityProvider]:
    with IdentityProvider(authority) as provider:
        yield provider


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, identity_provider: IdentityProvider
) -> Iterator[ReplicaSet]:
    """For all tests, each of which leaves all of them running."""
    folder = tmp_path_factory.mktemp("replicas")
    provider = {"issuer": identity_provider.issuer, "server_ca_bundle": str(authority.bundle)}
    with replica_set(folder, {"auth": {"oidc": {"ci": provider}}}) as found:
        yield found


@pytest.fixture
def before(replicas: ReplicaSet) -> Snapshot:
    """Before the test."""
    return Snapshot.of(replicas.bucket)


@pytest.fixture
def namespace(name: str) -> str:
    """Of this test alone."""
    return f"public/{name}"


@pytest.fixture
def client(replicas: ReplicaSet, namespace: str) -> Caller:
    """May push there."""
    client = Caller.of(replicas.balancer.url)
    client.log_in(f"repository:{namespace}:pull,push")
    return client


def replica_of_latest(replicas: ReplicaSet) -> int:
    return replicas.index_of(replicas.balancer.used[-1])


def begin_chunk(client: Caller, location: str, chunk: bytes, start: int, sent: int, *, stream: bool) -> Connection:
    """Send the beginning of a PATCH, of which a replica has its part when this returns."""
    connection = client.connect()
    fields = [("Host", "registry"), ("Authorization", f"Bearer {client.token}")]
    if stream:
        connection.send(request_head("PATCH", location, [*fields, ("Transfer-Encoding", "chunked")]))
        for piece in chunked([chunk[:sent]], end=False):
            connection.send(piece)
    else:
        fields += [("Content-Range", f"{start}-{start + len(chunk) - 1}"), ("Content-Length", str(len(chunk)))]
        connection.send(request_head("PATCH", location, fields) + chunk[:sent])
    return connection


def is_held(replicas: ReplicaSet, location: str) -> bool:
    """Whether some replica works on this upload."""
    upload = location.partition("?")[0].rpartition("/")[2]
    return replicas.redis.holds(f"angos:lease:upload/{upload}")


# --- where requests land ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(3 * MIB, 3 * MIB), (1, 0, 5 * MIB, 6 * MIB + 1)], ids=["small", "larger"])
def test_the_requests_of_a_push_land_on_different_replicas(
    replicas: ReplicaSet, before: Snapshot, client: Caller, namespace: str, sizes: tuple[int, ...]
) -> None:
    image = Image.made(namespace, "1.0", *sizes)
    pusher, used = Pusher(client, chunk_size=MIB), len(replicas.balancer.used)
    pusher.push(image)
    assert set(replicas.balancer.used[used:]) == {replica.at for replica in replicas.replicas}
    assert set(pusher.statuses) <= {201, 202}
    assert not pusher.broken
    check_bucket(replicas.bucket, before, [image])
    for replica in replicas.replicas:
        check_pulls(Caller.of(replica.url).get, [image])  # public: without a login


def test_a_token_that_one_replica_gave_is_good_at_the_others(replicas: ReplicaSet) -> None:
    for giver in replicas.replicas:
        client = Caller.of(giver.url)
        client.log_in("repository:private/app:pull")
        for replica in replicas.replicas:
            asking = Caller.of(replica.url)
            assert asking.get("/v2/private/app/tags/list").status == 401
            asking.token = client.token
            assert asking.get("/v2/private/app/tags/list").status == 404


def test_the_keys_of_an_identity_provider_are_fetched_once_for_all_replicas(
    replicas: ReplicaSet, identity_provider: IdentityProvider
) -> None:
    client = Caller.of(replicas.balancer.url)
    client.token = identity_provider.token()
    with ThreadPoolExecutor(COUNT) as threads:
        asked = [threads.submit(_status, replica.url, client.token) for replica in replicas.replicas]
    assert [each.result() for each in asked] == [403] * COUNT  # known, and not allowed
    assert sorted(identity_provider.asked) == ["/.well-known/openid-configuration", "/k"]


def _status(url: str, token: str) -> int:
    asking = Caller.of(url)
    asking.token = token
    return asking.get("/v2/private/app/tags/list").status


# --- what happens to them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["chunk", "stream"])
def test_a_replica_is_killed_in_the_middle_of_a_chunk(
    replicas: ReplicaSet, before: Snapshot, client: Caller, namespace: str, stream: bool
) -> None:
    image = Image.made(namespace, "1.0", 7 * MIB)
    pusher = Pusher(client, chunk_size=MIB)
    (layer,) = image.layers
    location = client.post(f"/v2/{namespace}/blobs/uploads/").location
    assert client.request("PATCH", location, layer[:MIB], [("Content-Range", f"0-{MIB - 1}")]).status == 202
    connection = begin_chunk(client, location, layer[MIB:], MIB, 5 * MIB + 7, stream=stream)
    wait_until(lambda: is_held(replicas, location))
    killed = replica_of_latest(replicas)
    replicas.kill(killed)
    assert connection.closed_by_server()
    # The lease of the dead lapses by itself; until then nobody is kept from going on.
    status = pusher.surely("GET", location)
    assert (status.status, status["range"]) == (204, f"0-{MIB - 1}")
    for start in range(MIB, 7 * MIB, MIB):
        chunk = layer[start : start + MIB]
        answer = client.request("PATCH", location, chunk, [("Content-Range", f"{start}-{start + MIB - 1}")])
        assert answer.status == 202, answer
    assert client.put(f"{location}?digest={digest_of(layer)}").status == 201
    pusher.push(image)
    replicas.restart(killed)
    check_bucket(replicas.bucket, before, [image], remains=True)
    for replica in replicas.replicas:
        check_pulls(Caller.of(replica.url).get, [image])


@pytest.mark.parametrize("stream", [False, True], ids=["chunk", "stream"])
def test_redis_is_restarted_in_the_middle_of_a_chunk(
    replicas: ReplicaSet, before: Snapshot, client: Caller, namespace: str, stream: bool
) -> None:
    image = Image.made(namespace, "1.0", 3 * MIB)
    (layer,) = image.layers
    location = client.post(f"/v2/{namespace}/blobs/uploads/").location
    connection = begin_chunk(client, location, layer, 0, 2 * MIB, stream=stream)
    wait_until(lambda: is_held(replicas, location))
    replicas.redis.kill()
    refused = client.request("PATCH", location, b"x", [("Content-Range", "0-0")])
    assert (refused.status, refused.codes) == (503, ["UNAVAILABLE"])
    assert refused.get("retry-after")
    replicas.redis.start()
    # Redis knows nothing of the lease any more, and nothing rests on it.
    for piece in chunked([layer[2 * MIB :]]) if stream else [layer[2 * MIB :]]:
        connection.send(piece)
    assert connection.answer("PATCH", location).status == 202
    pusher = Pusher(client)
    answer = pusher.surely("PUT", f"{location}?digest={digest_of(layer)}")
    assert answer.status == 201
    pusher.push(image)
    check_bucket(replicas.bucket, before, [image])


def test_redis_is_frozen_and_only_uploads_in_steps_are_refused(
    replicas: ReplicaSet, before: Snapshot, client: Caller, namespace: str
) -> None:
    image = Image.made(namespace, "1.0", MIB, MIB)
    pusher = Pusher(client)
    pusher.push(image)
    location = client.post(f"/v2/{namespace}/blobs/uploads/").location
    replicas.redis.freeze()
    try:
        for replica in replicas.replicas:
            asking = Caller.of(replica.url)
            asking.token = client.token
            refused = asking.request("PATCH", location, b"x")
            assert (refused.status, refused.codes) == (503, ["UNAVAILABLE"])
            assert refused.get("retry-after")
            check_pulls(asking.get, [image])
            blob = replica.url.encode()
            assert asking.post(f"/v2/{namespace}/blobs/uploads/?digest={digest_of(blob)}", blob).status == 201
    finally:
        replicas.redis.thaw()
    assert pusher.surely("GET", location).status == 204
    assert client.delete(location).status == 204
    pusher.push(Image.made(namespace, "2.0", MIB, MIB))


def test_a_replica_that_was_frozen_until_others_had_its_lease_is_refused(
    replicas: ReplicaSet, before: Snapshot, client: Caller, namespace: str
) -> None:
    image = Image.made(namespace, "1.0", 3 * MIB)
    (layer,) = image.layers
    slow, quick = (Caller.of(replicas.replicas[index].url) for index in (0, 1))
    slow.token = quick.token = client.token
    location = client.post(f"/v2/{namespace}/blobs/uploads/").location
    connection = begin_chunk(slow, location, b"\0" * len(layer), 0, 2 * MIB, stream=False)
    wait_until(lambda: is_held(replicas, location))
    replicas.replicas[0].interrupt(signal.SIGSTOP)
    try:
        replicas.redis.command("FLUSHALL")  # as time would have done
        assert not is_held(replicas, location)
        appended = quick.request("PATCH", location, layer, [("Content-Range", f"0-{len(layer) - 1}")])
        assert (appended.status, appended["range"]) == (202, f"0-{len(layer) - 1}")
    finally:
        replicas.replicas[0].interrupt(signal.SIGCONT)
    connection.send(b"\0" * MIB)
    late = connection.answer("PATCH", location)
    assert (late.status, late["range"]) == (416, f"0-{len(layer) - 1}")
    pusher = Pusher(client)
    assert pusher.surely("PUT", f"{location}?digest={digest_of(layer)}").status == 201
    pusher.push(image)
    check_bucket(replicas.bucket, before, [image])
    check_pulls(client.get, [image])


def test_a_tag_that_all_push_and_delete_at_once_ends_as_one_of_the_last_pushes(
    replicas: ReplicaSet, client: Caller, namespace: str
) -> None:
    images = [Image.made(namespace, "1.0", 1000 + who) for who in range(COUNT)]
    for image in images:
        Pusher(client).push(image)
    target = f"/v2/{namespace}/manifests/1.0"
    start = threading.Barrier(COUNT)

    def change(who: int) -> set[int]:
        asking = Caller.of(replicas.replicas[who].url)
        asking.log_in(f"repository:{namespace}:pull,push,delete")
        statuses = set()
        for _ in range(8):
            start.wait()
            statuses.add(asking.delete(target).status)
            statuses.add(asking.put(target, images[who].manifest, [("Content-Type", OCI_MANIFEST)]).status)
        return statuses

    with ThreadPoolExecutor(COUNT) as threads:
        found = set().union(*threads.map(change, range(COUNT)))
    assert {201, 202} <= found <= {201, 202, 404}
    seen = {Caller.of(replica.url).get(target).body for replica in replicas.replicas}
    assert len(seen) == 1, "replicas disagree"
    assert seen <= {image.manifest for image in images}
    for image in images:
        answer = client.get(f"/v2/{namespace}/manifests/{digest_of(image.manifest)}")
        assert answer.body == image.manifest


@pytest.mark.parametrize("after", [1, 300, 70_000, 390_000])
def test_connections_are_cut_in_the_middle_of_requests(
    replicas: ReplicaSet, before: Snapshot, client: Caller, namespace: str, after: int
) -> None:
    images = [Image.made(namespace, tag, 2 * MIB, 2 * MIB) for tag in ("1.0", "2.0")]
    pusher = Pusher(client)
    pusher.push(images[0])
    # A request in two is cut; that which goes on after a cut is not.
    replicas.balancer.cut_after(*(size for _ in range(12) for size in (after, 1 << 40)))
    pusher.push(images[1])
    assert pusher.broken
    replicas.balancer.cut_no_more()
    check_bucket(replicas.bucket, before, images, remains=True)
    check_pulls(client.get, images)


# --- all of it at once ------------------------------------------------------------------------------------------------


def test_several_push_while_everything_is_restarted(
    replicas: ReplicaSet, before: Snapshot, client: Caller, namespace: str
) -> None:
    images = [[Image.made(namespace, f"{who}.{number}", 700_000, 1_500_000) for number in range(4)] for who in range(4)]
    choices = random.Random("several push while everything is restarted")
    done = threading.Event()
    pushers = [Pusher(Caller(client.host, client.port, token=client.token)) for _ in images]

    def push(who: int) -> None:
        for image in images[who]:
            pushers[who].push(image)

    def answers() -> int:
        return sum(len(pusher.statuses) for pusher in pushers)

    def trouble() -> None:
        """One after the other, each after some more answers, so that every one of them strikes pushes."""
        number = 0
        while not done.is_set():
            wait_for = answers() + choices.randrange(5, 15)
            while answers() < wait_for and not done.wait(0.005):
                pass
            kind, number = ("kill", "cut", "redis", "freeze", "s3")[number % 5], number + 1
            strike(kind)

    def strike(kind: str) -> None:
        if kind == "kill":
            index = choices.randrange(COUNT)
            replicas.kill(index)
            replicas.restart(index)
        elif kind == "cut":
            replicas.balancer.cut_after(*(choices.randrange(500_000) for _ in range(4)))
        elif kind == "redis":
            replicas.redis.kill()
            replicas.redis.start()
        elif kind == "freeze":
            replicas.redis.freeze()
            done.wait(0.3)
            replicas.redis.thaw()
        else:
            replicas.s3.kill()
            replicas.s3.start()
        struck.append(kind)

    struck: list[str] = []
    with ThreadPoolExecutor(len(images) + 1) as threads:
        troubling = threads.submit(trouble)
        try:
            list(threads.map(push, range(len(images))))
        finally:
            done.set()
        troubling.result()
    replicas.balancer.cut_no_more()
    assert set(struck) == {"kill", "cut", "redis", "freeze", "s3"}, struck
    assert sum(pusher.broken for pusher in pushers), "nobody has noticed"
    pushed = [image for each in images for image in each]
    check_bucket(replicas.bucket, before, pushed, remains=True)
    # A replica that found the bucket away leaves it alone for a while.
    check_pulls(lambda target: pushers[0].surely("GET", target), pushed)
