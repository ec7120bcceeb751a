"""The unmodified huggingface_hub judges the stand-in for the Hub (testdata/stores)."""

import contextlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

from checks import check, expect
from served import served

CHECKPOINT = pathlib.Path(__file__).parent.parent / "golden/formats/awq"
MEMBER, STRANGER = "hf_memberOfEverything", "hf_strangerToAll"  # as package stores has them
ID = "org/model"


def folder(directory):
    """A checkpoint with a file in a folder, whose name has to be escaped."""
    shutil.copytree(CHECKPOINT, directory)
    nested = directory / "sub folder" / "a+b=ä%.txt"
    nested.parent.mkdir()
    nested.write_text("text")
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@contextlib.contextmanager
def hub(*flags):
    """Start the stand-in with a repository; give its files, and set the environment for it."""
    with tempfile.TemporaryDirectory() as d:
        files = folder(pathlib.Path(d) / "source")
        with served("hub", f"{d}/source", *flags):
            yield files


def client():
    """huggingface_hub reads the environment when it is imported."""
    import huggingface_hub.errors

    return huggingface_hub


def raises(kind, call):
    try:
        call()
    except kind as e:
        return e
    raise AssertionError(f"no {kind.__name__}")


def same_folder(want, directory):
    for name, content in want.items():
        expect((pathlib.Path(directory) / name).read_bytes() == content, f"{name} differs")


def reads():
    """Listings, downloads and ranges."""
    with hub("-page", "2") as files:
        hf, out = client(), tempfile.mkdtemp()
        api = hf.HfApi()
        info = api.model_info(ID, files_metadata=True)
        with check("model_info"):
            expect({s.rfilename: s.size for s in info.siblings} == {n: len(b) for n, b in files.items()}, info)
        with check("list_repo_tree, page by page"):
            tree = {e.path: e for e in api.list_repo_tree(ID, recursive=True) if isinstance(e, hf.hf_api.RepoFile)}
            expect({p: e.size for p, e in tree.items()} == {n: len(b) for n, b in files.items()}, tree)
            expect({p for p, e in tree.items() if e.lfs} == {n for n in files if n.endswith(".safetensors")}, tree)
        with check("get_paths_info"):
            (entry,) = api.get_paths_info(ID, ["config.json", "missing"])
            expect(entry.size == len(files["config.json"]), entry)
        with check("snapshot_download"):
            path = hf.snapshot_download(ID)
            same_folder(files, path)
            expect(pathlib.Path(path).name == info.sha, path)
        with check("snapshot_download of a commit"):
            same_folder(files, hf.snapshot_download(ID, revision=info.sha, local_dir=f"{out}/commit"))
        command = [pathlib.Path(sys.executable).with_name("hf")]
        with check("hf download"):
            subprocess.run([*command, "download", ID, "--local-dir", f"{out}/hf"], check=True, capture_output=True)
            same_folder(files, f"{out}/hf")
        with check("hf cache verify"):
            p = subprocess.run([*command, "cache", "verify", ID], capture_output=True, text=True)
            expect(p.returncode == 0, p.stdout + p.stderr)
        with check("safetensors metadata, shard by shard and at once"):
            one, other = api.get_safetensors_metadata(ID), api.get_sharded_safetensors_metadata(ID)
            expect(one.weight_map == other.weight_map and one.files_metadata == other.files_metadata, other)
        with check("HfFileSystem"):
            fs, shard = hf.HfFileSystem(), "model-00002-of-00002.safetensors"
            expect(fs.read_block(f"{ID}/{shard}", 100, 200) == files[shard][100:300], "range")
            expect(len(fs.ls(ID)) == len(files), fs.ls(ID))
        shutil.rmtree(out)


def refuses():
    """What is missing, gated, private, renamed or limited."""
    with hub("-access", "gated", "-old", "org/old"):
        hf = client()
        errors, get = hf.errors, hf.hf_hub_download
        with check("a gated repository"):
            raises(errors.GatedRepoError, lambda: get(ID, "config.json", token=False))
            e = raises(errors.GatedRepoError, lambda: get(ID, "config.json", token=STRANGER))
            expect(e.response.status_code == 403, e)
            get(ID, "config.json", token=MEMBER)
        with check("a missing revision"):
            raises(errors.RevisionNotFoundError, lambda: get(ID, "config.json", revision="v9", token=MEMBER))
        with check("a missing file"):
            raises(errors.RemoteEntryNotFoundError, lambda: get(ID, "missing.json", token=MEMBER))
        with check("a missing repository"):
            for token in False, MEMBER:
                raises(errors.RepositoryNotFoundError, lambda: get("org/missing", "config.json", token=token))
        with check("a renamed repository"):
            get("org/old", "model-00001-of-00002.safetensors", token=MEMBER)
            expect(hf.HfApi().model_info("org/old").id == ID, "the new name")


def limits():
    """A private repository, and a limited rate."""
    with hub("-access", "private", "-limit", "2"):
        hf = client()
        api = hf.HfApi(token=MEMBER)
        with check("a limited rate"):
            for _ in range(2):
                e = raises(hf.errors.HfHubHTTPError, lambda: api.model_info(ID))
                expect("rate limit" in str(e) and "Retry after 1 seconds" in str(e), e)
            api.model_info(ID)
        with check("a private repository"):
            for token in False, STRANGER:
                raises(hf.errors.RepositoryNotFoundError, lambda: hf.HfApi().model_info(ID, token=token))


CHILDREN = ("reads", "refuses", "limits")
