package statedir

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// MountOf is a path at which a network namespace is mounted; empty: there is none.
func MountOf(ns Namespace) (path string, err error) {
	err = eachMount(func(name, at string) {
		if path != "" || name != ns.String() {
			return
		}
		if of, err := Of(at); err == nil && of.Same(ns) { // another may be mounted over it
			path = at
		}
	})
	return path, err
}

// eachMount calls f with the name of each file system that is mounted, as a network
// namespace is, and where that is.
func eachMount(f func(name, at string)) error {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	defer mounts.Close()
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		// 99 24 0:4 net:[4026532000] /run/netns/pod rw shared:5 - nsfs nsfs rw (proc(5))
		if field := strings.Fields(lines.Text()); len(field) > 4 {
			f(field[3], field[4])
		}
	}
	return lines.Err()
}
