"""Load the folders that trained_folders.mjs saved with transformers, in float32, and compare log-probabilities with the ones it wrote.

    python test/io/check_trained.py OUT       (peer environment)
"""
import collections, json, pathlib, sys
import torch, transformers

worst = collections.defaultdict(float)
for folder in sorted(pathlib.Path(sys.argv[1], "saved").iterdir()):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), (folder, info)
    shards = len(list(folder.glob("*.safetensors")))
    assert (shards > 1) == folder.name.endswith("-sharded"), (folder, shards)
    for line in (folder / "scored.jsonl").read_text().splitlines():
        row = json.loads(line)
        ids = row["input_ids"]
        with torch.no_grad():
            logps = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].double(), -1)[range(len(ids) - 1), ids[1:]]
        off = (logps - torch.tensor(row["logps"], dtype=torch.float64)).abs().max().item()
        worst[folder.name.rsplit("-", 1)[1]] = max(worst[folder.name.rsplit("-", 1)[1]], off)
print(json.dumps({k: f"{v:.1e}" for k, v in worst.items()}), "worst absolute difference;", len(list(pathlib.Path(sys.argv[1], "saved").iterdir())), "folders")
sys.exit(max(worst.values()) > 1e-5)
