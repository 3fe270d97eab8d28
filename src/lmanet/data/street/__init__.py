"""The synthetic street drive's parts: what stands where, how it is drawn, and what spoils the picture."""
