package podtest

import (
	"os"
	"path/filepath"
	"testing"
)

// Built returns the path of something that the Makefile builds: below the
// directory that VLN_BUILD names, by default build in the module's root. If it
// was not built the test fails, or is skipped if the environment has
// ALLOW_SKIP=1.
func Built(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("VLN_BUILD")
	if dir == "" {
		dir = filepath.Join(moduleRoot(t), "build")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("ALLOW_SKIP") == "1" {
			t.Skipf("needs what make builds: %v", err)
		}
		t.Fatalf("needs what make builds (make build cni guest debian): %v", err)
	}
	return path
}

// Packaged returns the path of a file that a Debian package holds which make
// deps installs. If it is not there the test fails, or is skipped if the
// environment has ALLOW_SKIP=1.
func Packaged(t testing.TB, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("ALLOW_SKIP") == "1" {
			t.Skipf("needs Debian's packages: %v", err)
		}
		t.Fatalf("needs Debian's packages (make deps): %v", err)
	}
	return path
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = parent
	}
}
