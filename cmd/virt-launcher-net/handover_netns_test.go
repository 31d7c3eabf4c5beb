package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// The NICs in a file are those that are printed.
func TestOutputDir(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	dir := t.TempDir()
	r := runCLI(t, "", podArgs(t, pod, "prepare", "-o", "json", "--queues", "2", "--output-dir", dir)...)
	if r.code != exitDone {
		t.Fatalf("prepare: %+v", r)
	}
	nics, err := os.ReadFile(filepath.Join(dir, prestart.NICsFile))
	if err != nil {
		t.Fatal(err)
	}
	if string(nics) != r.stdout {
		t.Errorf("the file has\n%s\nprinted was\n%s", nics, r.stdout)
	}
}
