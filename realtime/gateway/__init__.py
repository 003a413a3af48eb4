"""The one-shot endpoints: chat, embed, image, vision, tts, asr, models, files, batches."""
