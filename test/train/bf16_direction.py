"""TRL's figure beside bf16_direction.mjs: the cosine between the changes of all weights after the same DPO steps in float32 and with `bf16`.

    python test/train/bf16_direction.py FOLDER [--steps 50] [--batch 4] [--learning-rate 1e-6]      (peer environment)
"""
import argparse, json, tempfile
import datasets, torch, transformers, trl

parser = argparse.ArgumentParser()
parser.add_argument("folder"); parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--batch", type=int, default=4); parser.add_argument("--learning-rate", type=float, default=1e-6)
a = parser.parse_args()
datasets.disable_caching()
load = lambda: transformers.AutoModelForCausalLM.from_pretrained(a.folder, dtype=torch.float32)


def change(bf16):
    with tempfile.TemporaryDirectory() as scratch:
        args = trl.DPOConfig(output_dir=scratch, max_steps=a.steps, per_device_train_batch_size=a.batch, learning_rate=a.learning_rate, bf16=bf16,
                             lr_scheduler_type="constant", beta=0.1, max_length=512, save_strategy="no", report_to=[], use_cpu=True,
                             gradient_checkpointing=False, disable_tqdm=True, train_sampling_strategy="sequential")
        data = datasets.load_dataset("json", data_files=f"{a.folder}/dpo.jsonl", split="train")
        trainer = trl.DPOTrainer(model=load(), ref_model=load(), args=args, train_dataset=data,
                                 processing_class=transformers.AutoTokenizer.from_pretrained(a.folder))
        trainer.train()
    start = dict(load().named_parameters())
    return torch.cat([(p - start[k]).detach().double().flatten() for k, p in trainer.model.named_parameters()])


full, half = change(False), change(True)
print(json.dumps({"steps": a.steps, "cosine": torch.nn.functional.cosine_similarity(full, half, dim=0).item(), "float32_change": full.norm().item(),
                  "bf16_change": half.norm().item()}))
