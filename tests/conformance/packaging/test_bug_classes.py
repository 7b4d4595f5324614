"""What bit others who built this registry, and which test of ours would notice.

The numbers are those of the list of bug classes that this project began with. What is not here belongs to parts that
are not built yet.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]

AUTHENTICATION = "property/test_authentication.py"
AUTHORIZATION = "property/test_authorization.py"
PROBLEMS = "conformance/runtime/test_configuration_problems.py"
MIRROR = "property/test_mirror.py"
DOCUMENTS = "conformance/runtime/test_documents.py"
REDIS_LEASES = "conformance/contracts/test_redis_leases.py"
CHUNKED = "conformance/oci/test_chunked_uploads.py"
IN_A_BUCKET = "conformance/contracts/test_registry_in_a_bucket.py"
LIMITS = "conformance/contracts/test_bucket_limits.py"
LISTINGS = "conformance/contracts/test_bucket_listings.py"
PATIENCE = "conformance/contracts/test_bucket_patience.py"
REDIRECTS = "conformance/configured/test_redirects.py"
REPLICAS = "conformance/replicas/test_three_replicas.py"
PLANTED = "conformance/scrub/test_planted_damage.py"
SCRUB = "property/test_scrub.py"
RELOAD = "conformance/runtime/test_reload.py"
RELOAD_TLS = "conformance/runtime/test_reload_tls.py"

COLLECTION = "property/test_collection.py"
COLLECTION_BUGS = "property/test_planted_collection.py"
SOAK = (
    "conformance/collection/test_soak.py"
    "::test_nothing_acknowledged_is_lost_and_in_the_end_exactly_what_can_be_reached_is_left"
)

NOTICED_BY: dict[int, tuple[str, list[str]]] = {
    1: (
        "the head of a token chose how it was checked",
        [
            f"{AUTHENTICATION}::test_an_algorithm_that_is_not_allowed_is_refused_before_a_key_is_touched",
            "conformance/runtime/test_tokens.py::test_a_public_key_is_no_shared_secret",
        ],
    ),
    2: (
        "a list of two kinds of algorithms refused both",
        [f"{AUTHENTICATION}::test_every_listed_algorithm_works_whatever_else_is_listed"],
    ),
    3: (
        "new keys were not found, then looked for too often",
        [f"{AUTHENTICATION}::test_a_new_key_is_found_at_once_and_unknown_names_cause_one_fetch_a_minute"],
    ),
    4: (
        "an outage was told as a wrong credential",
        [f"{AUTHENTICATION}::test_a_provider_that_is_down_is_503_and_is_left_alone_for_a_moment"],
    ),
    5: (
        "the order of providers decided",
        [f"{AUTHENTICATION}::test_another_provider_of_the_same_issuer_is_asked_when_one_is_down"],
    ),
    6: ("a missing claim was a 500", [f"{AUTHENTICATION}::test_required_claims_must_be_there_and_not_null"]),
    7: (
        "a wrong password made one anonymous",
        [f"{AUTHORIZATION}::test_an_invalid_credential_counts_as_none_unless_configured_otherwise"],
    ),
    8: (
        "the time of an answer told who is a user",
        [
            f"{AUTHENTICATION}::test_a_wrong_password_and_an_unknown_user_are_told_apart_by_nothing",
            "conformance/runtime/test_passwords.py::test_an_unknown_name_costs_one_run_of_the_same_cost",
        ],
    ),
    9: ("two users of one name", [f"{PROBLEMS}::test_a_user_name_belongs_to_one_user_and_to_no_provider"]),
    10: ("anybody could say where they come from", [f"{AUTHORIZATION}::test_the_address_of_the_client"]),
    11: ("`bearer` was not `Bearer`", [f"{AUTHENTICATION}::test_scheme_names_have_no_case"]),
    12: (
        "one odd key spoiled all keys of a provider",
        [f"{AUTHENTICATION}::test_keys_of_unknown_kinds_do_not_spoil_the_others"],
    ),
    13: (
        "logins held up everybody else",
        ["conformance/runtime/test_login_burst.py::test_who_waits_for_a_password_to_be_checked_takes_nobodys_place"],
    ),
    14: ("a rule that failed let requests in", [f"{AUTHORIZATION}::test_a_rule_that_fails_never_lets_a_request_in"]),
    15: ("a rule that is no boolean, too", [f"{AUTHORIZATION}::test_the_verdict_is_that_of_the_model"]),
    16: (
        "an empty rule ended the process",
        ["conformance/runtime/test_cel_rules.py::test_a_text_that_is_no_expression_is_refused"],
    ),
    17: ("a policy without rules was none", [f"{AUTHORIZATION}::test_an_empty_policy_is_its_default"]),
    18: ("rules saw objects where texts were", ["property/test_actions.py::test_the_variable_request_is_exactly_this"]),
    19: (
        "an answer of a webhook was used for another request",
        [f"{AUTHORIZATION}::test_two_requests_share_an_answer_only_if_the_webhook_is_told_the_same"],
    ),
    20: ("a hiccup of a webhook was remembered", [f"{AUTHORIZATION}::test_only_clear_answers_are_remembered"]),
    21: (
        "undeclared repositories asked no webhook",
        [f"{AUTHORIZATION}::test_every_request_meets_one_webhook_whether_or_not_its_repository_is_declared"],
    ),
    22: ("X-Forwarded-Proto was always http", [f"{AUTHORIZATION}::test_the_webhook_is_told_everything"]),
    23: (
        "a digest was enough to read across repositories",
        [
            f"{AUTHORIZATION}::test_mounting_takes_the_right_to_read_the_source",
            "property/test_redirects.py::test_a_redirect_is_never_to_what_the_namespace_does_not_own",
        ],
    ),
    24: (
        "a mirror gave away what other repositories hold",
        [f"{MIRROR}::test_bytes_of_another_repository_are_not_given_away"],
    ),
    25: ("an empty webhook name did not switch it off", [f"{AUTHORIZATION}::test_the_verdict_is_that_of_the_model"]),
    26: (
        "lists of event webhooks were accepted and ignored",
        [f"{PROBLEMS}::test_what_this_version_does_not_do_is_no_unknown_key"],
    ),
    27: (
        "unknown keys of policies were ignored",
        [f"{PROBLEMS}::test_a_name_of_elsewhere_is_answered_with_the_one_of_here"],
    ),
    28: (
        "secrets in logs",
        [
            f"{PROBLEMS}::test_a_secret_is_never_shown",
            f"{REDIRECTS}::test_neither_logs_nor_traces_show_a_signature",
            "conformance/runtime/test_access_secrets.py",
        ],
    ),
    29: (
        "answers told of rules and places",
        [f"{AUTHORIZATION}::test_answers_to_the_denied_say_nothing_of_rules_or_places"],
    ),
    30: (
        "broken TLS became plain HTTP",
        [
            f"{PROBLEMS}::test_a_tls_table_with_mistakes_is_never_plain_http",
            f"{RELOAD_TLS}::test_broken_tls_refuses_to_start",
        ],
    ),
    31: ("half a client certificate was none", [f"{PROBLEMS}::test_half_of_a_client_certificate_is_refused"]),
    32: ("a private authority did not load", [f"{DOCUMENTS}::test_private_authority_and_client_certificate"]),
    33: (
        "a token of one upstream, user or repository was shown for another",
        ["property/test_upstream_tokens.py::test_a_token_is_shown_to_nobody_else_and_for_nothing_else"],
    ),
    34: ("a token went to a foreign host", [f"{DOCUMENTS}::test_another_origin_does_not_get_it"]),
    35: (
        "a mirror stored bytes that it had not checked",
        [
            f"{MIRROR}::test_wrong_bytes_are_neither_stored_nor_complete",
            f"{MIRROR}::test_every_seed_holds_and_every_fault_strikes",
        ],
    ),
    36: (
        "a key led out of the root",
        ["conformance/contracts/test_directory_store.py::test_every_effect_refuses_paths_that_lead_out"],
    ),
    37: (
        "a blob was longer than what was hashed after an append that failed",
        [
            "property/test_upload_sessions.py::test_a_connection_that_breaks_after_any_byte_costs_only_time",
            f"{IN_A_BUCKET}::test_a_connection_that_breaks_around_the_end_of_a_part_costs_only_time",
            f"{REPLICAS}::test_connections_are_cut_in_the_middle_of_requests",
            f"{REPLICAS}::test_several_push_while_everything_is_restarted",
        ],
    ),
    38: (
        "an upload could not be continued after a request that was cut",
        [
            f"{CHUNKED}::test_what_arrived_before_a_cut_is_kept_and_can_be_continued",
            "conformance/crash/test_restart.py::test_an_upload_goes_on_after_a_restart",
            f"{REPLICAS}::test_a_replica_is_killed_in_the_middle_of_a_chunk",
        ],
    ),
    39: (
        "the declared length was believed",
        [
            f"{CHUNKED}::test_a_content_range_of_another_length_is_refused_and_nothing_kept",
            "conformance/server/test_bodies.py::test_an_interrupted_body_is_never_read_as_a_whole_one",
        ],
    ),
    40: (
        "finishing an upload again emptied the blob",
        [
            "conformance/oci/test_push_blobs.py::test_a_retried_put_of_a_completed_upload_succeeds",
            f"{IN_A_BUCKET}::test_a_connection_that_breaks_around_the_end_of_a_part_costs_only_time",
        ],
    ),
    41: (
        "blobs of nothing, and of just a part, were special",
        [
            "conformance/oci/test_push_blobs.py::test_an_empty_blob_can_be_pushed_in_every_way",
            f"{IN_A_BUCKET}::test_blobs_around_the_size_of_a_part_are_pushed_in_every_way",
        ],
    ),
    42: (
        "parts were too small, too large or too many",
        [
            f"{LIMITS}::test_parts_of_any_sizes_are_joined_within_the_limits",
            f"{LIMITS}::test_what_is_larger_than_one_copy_can_be_is_copied_inside_the_store_in_pieces",
            f"{LIMITS}::test_more_chunks_than_an_object_can_have_parts_become_one",
            f"{LIMITS}::test_an_upload_of_more_than_ten_thousand_chunks_is_closed",
            f"{PATIENCE}::test_pieces_that_become_nothing_are_thrown_away",
            f"{PATIENCE}::test_only_the_document_of_success_is_success",
        ],
    ),
    43: (
        "a transient error ended uploads of others",
        [
            f"{PATIENCE}::test_nothing_of_an_upload_is_removed_while_it_is_not_known_what_there_is",
            "conformance/contracts/test_bucket_uploads.py::test_what_a_killed_replica_left_open_ends_with_its_upload",
        ],
    ),
    44: (
        "remains of what failed stayed for good",
        [
            f"{PATIENCE}::test_pieces_that_become_nothing_are_thrown_away",
            "conformance/contracts/test_bucket_uploads.py::test_an_upload_that_is_cancelled_leaves_nothing_open",
            f"{LIMITS}::test_a_part_that_vanishes_leaves_no_blob",
            f"{REPLICAS}::test_redis_is_restarted_in_the_middle_of_a_chunk",
        ],
    ),
    45: (
        "an upload that could not be read was removed like a damaged one",
        [f"{COLLECTION}::test_an_upload_that_cannot_be_listed_stays_and_a_damaged_one_goes"],
    ),
    46: (
        "collection took layers whose manifest was still to come",
        [
            f"{COLLECTION}::test_a_collector_and_one_request_in_every_order_keep_every_promise",
            "property/test_planted_collection.py::test_a_planted_bug_of_the_collector_is_found_within_its_budget",
            SOAK,
        ],
    ),
    47: (
        "a blob looked old because its upload had been slow",
        [f"{COLLECTION}::test_bytes_that_look_old_are_as_safe"],
    ),
    48: (
        "bodies were held in memory whole",
        ["conformance/configured/test_bucket_memory.py::test_long_uploads_side_by_side_take_the_memory_of_their_parts"],
    ),
    49: (
        "what could not be read was taken for absent, and deleted",
        [
            f"{SCRUB}::test_what_could_not_be_read_is_neither_absent_nor_corrupt",
            f"{SCRUB}::test_what_stays_unreadable_is_told_and_left_alone",
            "property/test_retention.py::test_a_tag_about_which_something_cannot_be_read_costs_nothing_but_itself",
            "property/test_retention.py::test_a_repository_whose_tags_cannot_be_listed_is_passed_over",
            "property/test_prune_crossings.py::test_a_deletion_that_cannot_be_written_is_told_and_the_tag_stays",
            f"{COLLECTION_BUGS}::test_a_planted_bug_of_the_collector_is_found_within_its_budget",
        ],
    ),
    50: (
        "what was corrupt was taken for empty",
        [f"{PLANTED}::test_damage_is_told_or_ignored_and_costs_nothing_but_itself"],
    ),
    51: (
        "a manifest that could not be read could not be deleted whole",
        [f"{PLANTED}::test_a_manifest_whose_bytes_are_wrong_can_be_deleted"],
    ),
    52: (
        "deleting a manifest removed bytes that others needed",
        [
            f"{COLLECTION}::test_a_namespace_loses_what_only_others_need",
            SOAK,
        ],
    ),
    53: (
        "a layer that was listed twice was counted twice",
        [f"{COLLECTION}::test_what_a_manifest_names_twice_is_needed_once_and_goes_with_it"],
    ),
    54: (
        "deleting a tag took one that was pushed meanwhile",
        [
            "property/test_concurrent_pushes.py::test_two_requests_in_every_order_keep_every_promise",
            "property/test_prune_crossings.py::test_a_push_stands_in_every_order_and_wherever_the_pruner_is_killed",
        ],
    ),
    55: (
        "a tag pushed while its manifest was deleted named nothing",
        ["property/test_concurrent_pushes.py::test_two_requests_in_every_order_keep_every_promise"],
    ),
    56: (
        "whether a blob is needed was looked at, and then acted upon",
        [
            f"{COLLECTION}::test_a_collector_and_one_request_in_every_order_keep_every_promise",
            f"{COLLECTION_BUGS}::test_a_rare_bug_of_a_writer_is_found_among_all_schedules",
            SOAK,
        ],
    ),
    57: (
        "taking a store over undid what was pushed meanwhile",
        ["property/test_distribution.py::test_what_was_deleted_or_moved_here_since_stays_so"],
    ),
    58: (
        "one bad object ended a whole run",
        [
            f"{SCRUB}::test_killed_at_any_effect_and_run_again_it_ends_in_the_same_place",
            "property/test_retention.py::test_a_tag_about_which_something_cannot_be_read_costs_nothing_but_itself",
        ],
    ),
    59: (
        "a listing that was cut off was taken for complete",
        [
            "conformance/contracts/test_bucket.py::test_a_listing_that_may_lack_something_fails",
            f"{LISTINGS}::test_every_key_is_listed_once_and_in_order",
            f"{LISTINGS}::test_every_folder_is_listed_once_and_in_order",
            f"{LISTINGS}::test_names_that_are_shown_again_or_out_of_order_are_a_failure",
        ],
    ),
    60: (
        "folders that were left showed as tags",
        ["conformance/contracts/test_store.py::test_every_change_shows_in_the_next_listing"],
    ),
    61: (
        "strange names broke listings",
        [
            f"{SCRUB}::test_unknown_keys_are_moved_aside",
            "conformance/contracts/test_directory_store.py::test_stray_things_are_no_keys_and_no_failures",
            "conformance/contracts/test_bucket.py::test_what_consoles_show_as_empty_folders_is_no_key",
            "conformance/crash/test_damage.py::test_strange_files_among_the_data_disturb_nothing",
        ],
    ),
    62: (
        "what belongs into one store went to the other one",
        [
            "conformance/scrub/test_every_store.py::test_it_is_mended_wherever_it_lies",
            f"{IN_A_BUCKET}::test_an_image_that_was_pushed_in_chunks_is_pulled",
            "conformance/configured/test_buckets.py"
            "::test_metadata_lies_where_the_blobs_are_unless_it_has_a_place_of_its_own",
            f"{REDIRECTS}::test_content_is_signed_where_it_lies",
            "conformance/oci/test_data_sets.py",
            "conformance/oci/test_referrers.py",
        ],
    ),
    63: (
        "without a folder, data lay wherever the process was started",
        ["conformance/runtime/test_configuration.py::test_an_empty_root_is_refused"],
    ),
    64: (
        "temporary files showed in listings",
        [
            "conformance/contracts/test_directory_store.py::test_stray_things_are_no_keys_and_no_failures",
            "conformance/contracts/test_directory_store.py::test_every_effect_refuses_paths_that_lead_out",
        ],
    ),
    65: (
        "retention kept and dropped the wrong ones",
        [
            "property/test_retention.py::test_an_unknown_push_time_keeps",
            "property/test_retention.py::test_what_has_no_known_time_takes_no_place_among_the_newest",
            "property/test_retention.py::test_another_rule_only_keeps_more",
            "property/test_retention.py::test_signatures_of_what_is_here_stay_and_take_no_place_among_the_newest",
            "property/test_untagged.py::test_the_whole_tree_goes_in_one_run_with_signatures_and_lists_of_referrers",
            "property/test_untagged.py::test_children_and_referrers_of_what_stays_stay_and_what_is_referred_to",
            "conformance/runtime/test_retention_rules.py::test_what_cannot_be_meant_is_refused_when_it_is_loaded",
        ],
    ),
    66: (
        "retention deleted a tag that was pushed again meanwhile",
        [
            "property/test_prune_crossings.py::test_a_push_stands_in_every_order_and_wherever_the_pruner_is_killed",
            "conformance/crash/test_prune_kill.py"
            "::test_acknowledged_pushes_stand_while_the_tags_are_pruned_and_the_pruner_is_killed",
        ],
    ),
    67: (
        "records without a type made clients refuse the manifest",
        ["conformance/takeover/test_angos_1_6.py::test_everything_in_it_can_be_read"],
    ),
    68: (
        "a lease was released or kept by somebody who did not hold it",
        [
            f"{REDIS_LEASES}::test_nobody_releases_what_somebody_else_holds",
            f"{REDIS_LEASES}::test_a_lease_that_is_lost_is_told_and_free_for_others",
            f"{REPLICAS}::test_a_replica_that_was_frozen_until_others_had_its_lease_is_refused",
            f"{REDIS_LEASES}::test_a_frozen_redis_costs_a_second_and_keeps_nothing_held",
        ],
    ),
    79: (
        "an outage was told as an absence",
        [
            "conformance/configured/test_bucket_troubles.py"
            "::test_a_bucket_that_goes_wrong_at_any_step_costs_only_another_try",
            "conformance/contracts/test_bucket.py::test_only_the_bucket_can_say_that_something_is_absent",
        ],
    ),
    89: (
        "browsers could not follow a redirect",
        [
            f"{REDIRECTS}::test_what_the_bucket_would_answer_otherwise_is_answered_here",
            "property/test_redirects.py"
            "::test_who_is_sent_to_the_store_finds_there_what_the_registry_would_have_answered",
        ],
    ),
    91: (
        "large downloads were cut by a limit on the whole",
        [f"{PATIENCE}::test_a_value_that_keeps_coming_may_take_any_time"],
    ),
    92: (
        "the circuit breaker stuck, let everybody through, or did not see every call",
        [
            "conformance/contracts/test_bucket.py::test_an_open_breaker_lets_one_probe_through_after_a_while",
            f"{PATIENCE}::test_when_a_store_is_asked_again_one_finds_out_and_the_others_do_not_wait_for_it",
            f"{PATIENCE}::test_a_store_that_fails_is_spared_by_uploads_copies_and_listings_too",
        ],
    ),
    93: ("all came back at once", [f"{PATIENCE}::test_pauses_between_attempts_grow_and_differ"]),
    94: (
        "a restart of Redis switched the cache off for good",
        [
            "conformance/contracts/test_cache.py"
            "::test_a_cache_that_is_away_never_fails_and_goes_by_what_the_process_wrote",
            f"{REDIS_LEASES}::test_a_redis_that_is_restarted_between_two_questions_is_not_even_noticed",
        ],
    ),
    98: (
        "the cost of a chunk grew with those before it",
        ["property/test_upload_state.py::test_a_chunk_costs_the_same_however_many_went_before"],
    ),
    101: (
        "changes behind links went unnoticed",
        [
            f"{RELOAD}::test_a_swap_of_a_kubernetes_volume_twice",
            f"{RELOAD}::test_a_linked_folder_and_two_files",
            f"{RELOAD}::test_a_relative_path_with_another_file_renamed_over_it",
            f"{RELOAD}::test_a_file_that_is_written_in_place",
        ],
    ),
    102: (
        "limits did not change in a reload",
        [f"{RELOAD}::test_after_the_line_in_the_log_no_worker_answers_by_the_old_one"],
    ),
    103: (
        "what loaded did not run",
        [f"{PROBLEMS}::test_keys_that_do_not_fit_are_found_at_load"],
    ),
    104: (
        "a certificate changed under a handshake",
        ["conformance/server/test_tls.py::test_a_new_certificate_is_shown_to_new_clients_while_others_go_on"],
    ),
    105: (
        "TLS was switched off unnoticed",
        [f"{RELOAD_TLS}::test_tls_stays_on_until_a_restart", f"{RELOAD_TLS}::test_tls_stays_off_until_a_restart"],
    ),
    106: (
        "changes were lost while the watcher was made anew",
        ["conformance/runtime/test_watch.py::test_following_the_same_files_again_forgets_no_change"],
    ),
    107: (
        "an example mounted the configuration so that it never changes",
        ["conformance/packaging/test_examples.py::test_no_example_mounts_a_single_file"],
    ),
}


@cache
def _tests_of(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("number", NOTICED_BY, ids=lambda number: f"class-{number}")
def test_a_bug_class_has_tests_that_are_there(number: int) -> None:
    _, tests = NOTICED_BY[number]
    for test in tests:
        file, _, name = test.partition("::")
        assert name in _tests_of(file) if name else (TESTS / file).exists(), test
