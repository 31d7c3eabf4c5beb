package statedir

import (
	"os"
	"path/filepath"
)

// Abandoned tells whether dir has records, each of them of a network namespace that is no
// more: no process is in it, and it is mounted nowhere. That can be told on the node alone,
// by root, who sees all processes and the mounts of the container runtime.
func Abandoned(dir string) (bool, error) {
	paths, err := Records(dir)
	if err != nil || len(paths) == 0 {
		return false, err
	}
	own, err := Of("")
	if err != nil {
		return false, err
	}
	living, err := livingNamespaces()
	if err != nil {
		return false, err
	}
	for _, path := range paths {
		ns, ok := recorded(path)
		if !ok || ns.BootID == own.BootID && living[ns.String()] {
			return false, nil
		}
	}
	return true, nil
}

// livingNamespaces are the network namespaces that processes are in, and those that are
// mounted, by their names.
func livingNamespaces() (map[string]bool, error) {
	living := map[string]bool{}
	processes, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		name, _ := os.Readlink(p) // an error: it has ended, or a root of fewer rights may not look
		living[name] = true
	}
	err = eachMount(func(name, _ string) { living[name] = true })
	return living, err
}
