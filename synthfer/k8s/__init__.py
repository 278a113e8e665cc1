"""The Kubernetes side of synthfer: what kubectl, kustomize and helm cannot tell of the manifests in k8s/."""
