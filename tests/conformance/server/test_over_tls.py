"""What the server promises over plain sockets, promised over TLS: the same tests, behind a handshake."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.server.running import RunningServer, StartServer, starting_servers
from tests.conformance.server.test_bodies import (  # noqa: F401
    test_a_body_sent_in_any_pieces_arrives_identical,
    test_a_body_that_is_too_large_is_refused_unread_when_its_length_is_known,
    test_a_chunked_body_arrives_identical,
    test_a_chunked_body_that_is_too_large_is_refused,
    test_a_client_that_sends_a_large_unwanted_body_sees_the_answer,
    test_a_counted_body_arrives_identical,
    test_a_sink_that_fails_ends_the_transfer,
    test_a_small_unread_body_is_skipped,
    test_a_small_unread_body_may_arrive_after_the_answer,
    test_an_interrupted_body_is_never_read_as_a_whole_one,
    test_an_unread_chunked_body_that_is_there_is_skipped,
    test_bodies_are_received_side_by_side,
    test_continue_is_not_sent_to_a_client_that_did_not_wait,
    test_continue_is_sent_once_the_body_is_wanted,
    test_what_arrived_before_the_client_left_is_kept,
)
from tests.conformance.server.test_chunked import (  # noqa: F401
    test_a_bad_body_is_answered_with_400_and_the_end_of_the_connection,
    test_a_good_body_reaches_the_application,
)
from tests.conformance.server.test_contents import (  # noqa: F401
    _content,
    test_a_client_that_leaves_in_the_middle_of_a_download_frees_it,
    test_a_client_that_reads_slowly_gets_everything,
    test_a_slice_of_a_value_arrives_identical,
    test_an_empty_value_is_served,
    test_content_that_ends_early_cuts_the_connection_and_is_never_padded,
    test_content_that_is_not_as_described_is_a_500,
    test_head_of_a_value_has_its_length_only,
    test_several_slices_arrive_between_their_boundaries,
)
from tests.conformance.server.test_ending import (  # noqa: F401
    test_connections_that_the_system_had_accepted_are_served,
    test_idle_connections_are_closed_at_once,
    test_requests_in_flight_are_answered_and_closed,
    test_uploads_and_downloads_in_flight_are_finished,
    test_what_does_not_end_in_time_is_cut,
)
from tests.conformance.server.test_hostile_heads import (  # noqa: F401
    test_a_hostile_head_gets_an_answer_and_the_end_of_the_connection,
    test_what_can_never_become_a_request_is_refused_at_once,
)
from tests.conformance.server.test_patience import (  # noqa: F401
    test_a_body_that_stalls_is_408,
    test_a_client_that_keeps_sending_after_the_last_answer_is_cut,
    test_a_client_that_never_reads_is_cut,
    test_a_head_that_does_not_end_is_408,
    test_an_idle_connection_is_closed_without_a_word,
)
from tests.conformance.server.test_requests import (  # noqa: F401
    test_a_client_may_end_its_side_and_still_get_the_answer,
    test_a_client_that_leaves_while_it_is_answered_disturbs_nobody,
    test_a_client_that_wants_to_close_gets_its_answer_and_the_end,
    test_a_failure_of_the_application_is_a_500_without_its_secrets,
    test_a_long_inline_answer_arrives_whole,
    test_a_request_may_arrive_byte_by_byte,
    test_a_request_pipelined_behind_a_long_body_is_found,
    test_answers_that_have_no_body_carry_neither_body_nor_length,
    test_clients_that_leave_at_odd_moments_disturb_nobody,
    test_head_is_answered_with_the_length_and_without_the_body,
    test_http_1_0_is_answered_and_closed,
    test_many_requests_are_answered_on_one_connection,
    test_pipelined_requests_are_answered_in_order,
)
from tests.conformance.server.tls_material import TlsMaterial


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> TlsMaterial:
    """What servers and clients of this module have in common."""
    return TlsMaterial(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(loop: str, material: TlsMaterial, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """In place of the plain one."""
    folder = tmp_path_factory.mktemp("contents")
    with starting_servers(loop, folder, material.server(), material.client()) as start:
        yield start()


@pytest.fixture
def start_server(loop: str, material: TlsMaterial, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """In place of the one that starts plain servers."""
    folder = tmp_path_factory.mktemp("contents")
    with starting_servers(loop, folder, material.server(), material.client()) as start:
        yield start
