"""What synthfer costs and gains, measured side by side in one run with what it is compared with."""
