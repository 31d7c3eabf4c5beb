package podtest

import (
	"fmt"
	"os"
)

// OpenNS opens the network namespace that a path names: /proc/42/ns/net. The
// caller closes it.
func OpenNS(path string) (*NS, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &NS{file: file}, nil
}
