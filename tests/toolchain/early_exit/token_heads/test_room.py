"""Tokens lie on disk where the limit and the disk leave room, and whoever waits longer is told why."""

from lraee_toolchain.early_exit.token_heads.room import GIGABYTE, SPARE, TokenRoom


def room(limit_gb: float, free_gb: float = 1000) -> tuple[TokenRoom, list[str]]:
    """A room and what it said."""
    said: list[str] = []
    return TokenRoom(round(limit_gb * GIGABYTE), lambda: round(free_gb * GIGABYTE), said.append), said


def test_splits_get_room_in_the_order_in_which_they_ask_and_keep_it() -> None:
    """The first that does not fit is refused, a smaller one after it is not; asking again changes nothing."""
    tokens, said = room(10)
    sizes = {"heads": 7, "gating": 4, "promise": 2}
    for _ in range(2):
        granted = [tokens.grant(k, size * GIGABYTE, what=k, found=False) for k, size in sizes.items()]
        assert granted == [True, False, True]
    assert said == [
        "all tokens of heads take 7.0 GB in the work folder",
        "all tokens of gating take 4.0 GB, --disk-limit 10 leaves 3.0 GB: give 11 or more; meanwhile the tower runs "
        "again in every epoch of the heads, which is slower",
        "all tokens of promise take 2.0 GB in the work folder",
    ]


def test_a_full_disk_refuses_what_the_limit_allows_unless_it_is_there_already() -> None:
    """So much of the disk stays free for everything after the tokens; a resumed export reads what it wrote."""
    spare = SPARE / GIGABYTE
    for found, granted in ((False, False), (True, True)):
        tokens, said = room(10, free_gb=3 + spare)
        assert tokens.grant("heads", 4 * GIGABYTE, what="heads", found=found) == granted
        assert ("the disk has 3.0 GB to spare: make room or give another --work" in "".join(said)) == (not granted)
    tokens, _ = room(10, free_gb=4 + spare)
    assert tokens.grant("heads", 4 * GIGABYTE, what="heads", found=False)


def test_little_is_kept_without_a_word() -> None:
    """Below a gigabyte nobody needs to know."""
    tokens, said = room(1)
    assert tokens.grant("heads", GIGABYTE // 2, what="heads", found=False)
    assert said == []
