package prestart

import (
	"fmt"

	"github.com/containernetworking/plugins/pkg/ns"
)

// in runs fn in the network namespace at path, on a thread of its own; an
// empty path is the calling thread's. Goroutines that fn starts are elsewhere:
// whatever must be in the namespace fn opens itself.
func in(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	target, err := ns.GetNS(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer target.Close()
	return target.Do(func(ns.NetNS) error { return fn() })
}
