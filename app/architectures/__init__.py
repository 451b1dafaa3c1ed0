import os

# Read once, when the Hugging Face libraries are imported: nothing here may ever download weights or code.
os.environ["HF_HUB_OFFLINE"] = "1"
