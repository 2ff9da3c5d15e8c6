"""Each recipe reads a small tree as its corpus is laid out."""

import pytest
from made import tarred

from decodec_jax.arguments import parser
from decodec_jax.corpora import recipes
from decodec_jax.errors import UserError

LS = "LibriSpeech/train-clean-100/19/198"
# recipe: files with their text ("" for a recording), and what it makes of the recordings: (name, kind, speaker, split,
# transcript); a recording that is not here is left out
TREES = {
    "librispeech": (
        {f"{LS}/19-198-0000.flac": "", f"{LS}/19-198.trans.txt": "19-198-0000 TWO WORDS\n19-198-0001 MORE\n",
         "LibriSpeech/dev-clean/84/1/84-1-0000.flac": "", "LibriSpeech/test-other/7/1/7-1-0000.flac": ""},
        [("84-1-0000", "speech", "84", "valid", ""), ("7-1-0000", "speech", "7", "test", ""),
         ("19-198-0000", "speech", "19", "train", "TWO WORDS")],
    ),
    "libritts": (
        {"LibriTTS/train-clean-100/19/198/19_198_000000_000000.wav": "",
         "LibriTTS/train-clean-100/19/198/19_198_000000_000000.normalized.txt": "Two words."},
        [("19_198_000000_000000", "speech", "19", "train", "Two words.")],
    ),
    "vctk": (
        {"wav48_silence_trimmed/p225/p225_001_mic1.flac": "", "wav48_silence_trimmed/p225/p225_001_mic2.flac": "",
         "wav48_silence_trimmed/s5/s5_002_mic1.flac": "", "txt/p225/p225_001.txt": "Please call Stella.\n"},
        [("p225_001_mic1", "speech", "p225", "train", "Please call Stella."),
         ("s5_002_mic1", "speech", "s5", "train", "")],
    ),
    "aishell3": (
        {"train/wav/SSB0005/SSB00050001.wav": "", "test/wav/SSB0005/SSB00050009.wav": "",
         "train/content.txt": "SSB00050001.wav\t广 guang3 州 zhou1\n"},
        [("SSB00050009", "speech", "SSB0005", "test", ""), ("SSB00050001", "speech", "SSB0005", "train", "广州")],
    ),
    "wsj": (
        {"wsj0/si_tr_s/011/011c0201.wav": "", "wsj0/si_et_05/440/440c0201.wav": "",
         "wsj0/si_dt_05/050/050c0201.wav": "",
         "wsj0/transcrp/011c0200.dot": "THE SALE (011c0201)\n"},
        [("050c0201", "speech", "050", "valid", ""), ("440c0201", "speech", "440", "test", ""),
         ("011c0201", "speech", "011", "train", "THE SALE")],
    ),
    "esc50": (
        {"audio/1-100032-A-0.wav": "", "audio/5-9032-A-0.wav": "",
         "meta/esc50.csv": "filename,fold,target,category,esc10\n1-100032-A-0.wav,1,0,dog,True\n"},
        [("1-100032-A-0", "background", "", "train", ""), ("5-9032-A-0", "background", "", "test", "")],
    ),
    "dns_noise": ({"noise_fullband/a_1.wav": ""}, [("a_1", "background", "", "train", "")]),
    "musan": (
        {"musan/noise/free-sound/noise-free-sound-0000.wav": "", "musan/music/fma/music-fma-0000.wav": "",
         "musan/speech/librivox/speech-librivox-0000.wav": ""},
        [("music-fma-0000", "background", "", "train", ""), ("noise-free-sound-0000", "background", "", "train", ""),
         ("speech-librivox-0000", "speech", "speech-librivox-0000", "train", "")],
    ),
    "demand": ({"DKITCHEN/ch01.wav": "", "DKITCHEN/ch02.wav": ""}, [("ch01", "background", "", "train", "")]),
    "rirs": (
        {"RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav": "",
         "RIRS_NOISES/pointsource_noises/noise-free-sound-0001.wav": ""},
        [("noise-free-sound-0001", "background", "", "train", ""), ("Room001-00001", "room", "", "train", "")],
    ),
}  # fmt: skip


def facts(found):
    return [(item.id.split("/")[-1].split(".")[0], item.kind, item.speaker, item.split, item.transcript)
            for item in found]  # fmt: skip


def test_every_recipe_is_tested():
    assert TREES.keys() == recipes.RECIPES.keys()


def test_the_command_s_help_names_every_recipe(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["prepare", "--help"])
    assert ", ".join(recipes.RECIPES) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_reads_its_corpus_unpacked_and_packed(tmp_path, name):
    files, wanted = TREES[name]
    for path, text in files.items():
        (tmp_path / "corpus" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / path).write_text(text)
    found = recipes.listed(f"{name}={tmp_path / 'corpus'}")
    assert facts(found) == wanted
    assert all(item.licence for item in found)
    packed = tarred(tmp_path / "corpus.tar.gz", {path: text.encode() for path, text in files.items()})
    assert sorted(facts(recipes.listed(f"{name}={packed}"))) == sorted(wanted)


def test_a_part_of_esc50_has_a_freer_licence(tmp_path):
    for path, text in TREES["esc50"][0].items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    assert [item.licence for item in recipes.listed(f"esc50={tmp_path}")] == ["CC BY 3.0", "CC BY-NC 3.0"]


def test_mistakes_are_one_line(folder):
    with pytest.raises(UserError, match="'vtck' is not a recipe; there are aishell3, "):
        recipes.listed(f"vtck={folder}")
    with pytest.raises(UserError, match="holds no recording where vctk has them"):
        recipes.listed(f"vctk={folder}")
    odd = folder / "a=b"
    odd.mkdir()
    (odd / "a.wav").write_text("")
    assert len(recipes.listed(str(odd))) == 1
