"""Tools for the manifests in k8s/, for what kubectl, kustomize and helm do not do: render pods, lint, submit, fetch."""
