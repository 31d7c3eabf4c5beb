package podtest

import (
	"fmt"
	"net"
	"os"
	"testing"
)

// TapFile opens a pod's tap, which has one queue, for a test: for a QEMU that
// does not live in the pod's namespace, which gets the descriptor. It is closed
// at the test's end.
func TapFile(t testing.TB, ns *NS, name string) *os.File {
	t.Helper()
	var file *os.File
	err := ns.Do(func() (err error) {
		if _, err = net.InterfaceByName(name); err == nil { // opening would make one
			file, err = openQueue(name, false)
		}
		return err
	})
	if err != nil {
		t.Fatal(fmt.Errorf("open tap %s: %w", name, err))
	}
	t.Cleanup(func() { file.Close() })
	return file
}
