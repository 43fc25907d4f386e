"""Ids, the object store, and pointers on their own."""

import random
import threading

import pytest
import torch

from syft.exceptions import MalformedMessage, ObjectNotFoundError
from syft.objects import (
    IdProvider,
    ObjectPointer,
    ObjectStorage,
    ObjectWrapper,
    pack_object,
    unpack_object,
)


class Location:
    """Stands for a worker's proxy, and notes what it is asked for."""

    id = "bob"

    def __init__(self) -> None:
        self.forgotten: list[object] = []

    def request_obj(self, obj_id):
        return f"object {obj_id}"

    async def async_request_obj(self, obj_id):
        return f"object {obj_id}"

    def _forget(self, obj_id):
        self.forgotten.append(obj_id)


def stored(*objects: ObjectWrapper) -> ObjectStorage:
    storage = ObjectStorage()
    for obj in objects:
        storage.set_obj(obj)
    return storage


def test_ids_differ_whatever_the_seed():
    drawn = set()
    for _ in range(2):
        torch.manual_seed(0)
        random.seed(0)
        drawn |= {IdProvider().pop() for _ in range(500)}
    assert len(drawn) == 1000
    assert all(isinstance(new, int) and 0 <= new < 2**62 for new in drawn)


def test_ids_that_were_given_come_first_from_the_last_one_on():
    provider = IdProvider([1, 2])
    provider.set_next_ids([3], check_ids=False)
    assert [provider.pop(), provider.pop("ignored"), provider.pop()] == [3, 2, 1]
    assert provider.pop() not in (1, 2, 3)


def test_drawing_ids_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    IdProvider().pop()
    assert torch.equal(torch.get_rng_state(), state)


def test_objects_are_stored_replaced_and_removed():
    storage = stored(ObjectWrapper("first", 1), ObjectWrapper("other", "two"))
    storage.set_obj(ObjectWrapper("second", 1))
    assert storage.objects_count() == 2
    assert storage.get_obj(1).obj == "second" and storage.find_by_id("two").obj == "other"
    storage.rm_obj(1)
    storage.rm_obj(1, force=True)
    assert storage.current_objects().keys() == {"two"} and storage.find_by_id(1) is None
    assert storage.clear_objects() is storage and storage.objects_count() == 0
    assert storage.clear_objects(return_self=False) is None


def test_a_tensor_is_registered_under_its_own_id_or_another():
    storage, tensor = ObjectStorage(), torch.ones(1)
    storage.register_obj(tensor, 5)
    assert tensor.id == 5 and storage.get_obj(5) is tensor
    storage.de_register_obj(tensor)
    storage.register_obj(tensor)
    assert storage.get_obj(5) is tensor
    storage.de_register_obj(torch.ones(1))  # it has no id, so it is not stored
    assert storage.objects_count() == 1


def test_a_missing_object_is_named():
    with pytest.raises(KeyError, match="has no object with id 'weights'") as refused:
        ObjectStorage().get_obj("weights")
    assert isinstance(refused.value, ObjectNotFoundError) and refused.value.obj_id == "weights"


def test_the_copy_of_the_objects_is_a_copy():
    storage = stored(ObjectWrapper(1, 1))
    storage.current_objects().clear()
    assert storage.list_objects() == "{1: <ObjectWrapper id:1 obj:1>}"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("#x", [1, 2]),
        (["#x"], [1, 2]),
        (["#x", "#y"], [2]),
        (["#y", "#z"], []),
        (3, [3]),
        ([4, "#x"], [4]),
        ("#none", []),
        ([], [1, 2, 3]),
    ],
    ids=str,
)
def test_objects_are_found_by_all_their_tags_or_by_id(query, found):
    storage = stored(
        ObjectWrapper(None, 1, tags=["#x"]),
        ObjectWrapper(None, 2, tags=["#x", "#y"]),
        ObjectWrapper(None, 3, tags={"#z"}),
        ObjectWrapper(None, 4),
    )
    assert [obj.id for obj in storage.search_objects(query)] == found


def test_one_tag_is_searched_for_in_the_order_of_storing():
    storage = stored(
        ObjectWrapper(None, 2, tags=["#x"]),
        ObjectWrapper(None, 1, tags=["#x"]),
        ObjectWrapper(None, 3),
    )
    assert [obj.id for obj in storage.find_by_tag("#x")] == [2, 1]


def test_threads_may_share_a_store():
    storage = ObjectStorage()

    def work(first: int) -> None:
        for obj_id in range(first, first + 300):
            storage.set_obj(ObjectWrapper(None, obj_id, tags=["#x"]))
            storage.search_objects("#x")
        for obj_id in range(first, first + 299):
            storage.rm_obj(obj_id)

    threads = [threading.Thread(target=work, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(storage.current_objects()) == [299, 1299, 2299, 3299]


def test_a_wrapper_is_called_like_its_object():
    wrapper = ObjectWrapper(lambda x, scale=1: x * scale, id=1, tags=["#f"], description="scales")
    assert wrapper(3, scale=2) == 6
    assert (wrapper.id, wrapper.tags, wrapper.description) == (1, ["#f"], "scales")


def test_an_object_is_packed_and_unpacked():
    tensor = torch.ones(2)
    tensor.tags, tensor.description = {"#b", "#a"}, "two"
    packed = pack_object(tensor)
    assert packed == {"obj": tensor, "wrapped": False, "tags": ["#a", "#b"], "description": "two"}
    there = unpack_object(5, {**packed, "obj": torch.ones(2)})
    assert (there.id, there.tags, there.description) == (5, {"#a", "#b"}, "two")
    packed = pack_object(ObjectWrapper(len, id=1))
    assert packed == {"obj": len, "wrapped": True, "tags": [], "description": None}
    assert unpack_object("x", packed).obj is len


PACKED = {"obj": torch.ones(1), "wrapped": False, "tags": [], "description": None}


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (None, "no object"),
        ([1], "no object"),
        ({"obj": 1}, "no object: KeyError"),
        ({**PACKED, "obj": "text"}, "is of type str; expected a tensor"),
        ({**PACKED, "wrapped": 1, "obj": 2}, "is of type int; expected a tensor"),
        ({**PACKED, "tags": 5}, "tags of an object are of type int"),
        ({**PACKED, "tags": [5]}, "tags of an object are of type list; expected"),
        ({**PACKED, "description": 5}, "description of an object is of type int"),
    ],
    ids=str,
)
def test_what_is_no_packed_object_is_refused(packed, reason):
    with pytest.raises(MalformedMessage, match=reason):
        unpack_object(1, packed)


def test_the_object_goes_when_its_pointer_goes():
    location = Location()
    pointer = ObjectPointer(location, 7)
    assert location.forgotten == []
    del pointer
    assert location.forgotten == [7]


def test_the_object_stays_if_it_is_not_to_be_collected():
    location = Location()
    pointer = ObjectPointer(location, 7, garbage_collect_data=False)
    del pointer
    assert location.forgotten == []


async def test_a_fetched_object_is_not_deleted_once_more():
    location = Location()
    for pointer in (ObjectPointer(location, 7), ObjectPointer(location, 8)):
        fetched = pointer.get() if pointer.id_at_location == 7 else await pointer.async_get()
        assert fetched == f"object {pointer.id_at_location}"
    del pointer
    assert location.forgotten == []


def test_a_pointer_of_another_process_deletes_nothing():
    location = Location()
    pointer = ObjectPointer(location, 7)
    pointer._process += 1  # as a forked child sees its parent's pointer
    del pointer
    assert location.forgotten == []


def test_a_pointer_is_not_called_as_its_object_is():
    pointer = ObjectPointer(Location(), 7, owner="me", id=3)
    with pytest.raises(TypeError) as refused:
        pointer(torch.ones(1))
    assert str(refused.value) == (
        "cannot call [ObjectPointer | me:3 -> bob:7]: it is a pointer; its object is on worker "
        "'bob'. To call it here, call .get() first: pointer.get()(...)."
    )


def test_a_pointer_shows_both_ends():
    pointer = ObjectPointer(Location(), 7, owner="me", id=3, tags=["#y", "#x"])
    assert repr(pointer) == "[ObjectPointer | me:3 -> bob:7] #x #y"
