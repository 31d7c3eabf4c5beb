// Package kind tests the program in a Kubernetes cluster of two nodes. "make
// test-kind" makes the cluster with the scripts beside it and runs it.
package kind

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv("KIND_CLUSTER") == "" {
		println("skipped: needs a cluster; run make test-kind")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestCluster shows that the cluster is one: what fails here is not ours.
func TestCluster(t *testing.T) {
	apply(t)
	address := get(t, "pod/server", ".status.podIP")
	client(t, "ping", "-c", "1", "-W", "3", address)
	page(t, "http://"+address, "hello from a pod")
	page(t, "http://"+get(t, "service/server", ".spec.clusterIP"), "hello from a pod")
	page(t, "http://server.default.svc.cluster.local", "hello from a pod")
	page(t, "https://kubernetes.default.svc/livez", "ok")
}
