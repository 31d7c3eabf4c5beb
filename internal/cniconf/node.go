// Package cniconf puts the CNI plugin on a node and takes it off again: its binary, and
// its entry in the network configuration that the container runtime takes.
package cniconf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// Type is the plugin's type in a configuration, and the name of its binary.
const Type = "virt-launcher-net"

// Node is where the plugin is installed. The directories are the runtime's, and have to
// be there.
type Node struct {
	BinDir  string // of its plugins, such as /opt/cni/bin
	ConfDir string // of its network configurations, such as /etc/cni/net.d
	// Chain puts the plugin behind those of the network that the runtime takes; else only
	// the binary is installed, for a NetworkAttachmentDefinition.
	Chain bool
	// Entry are the plugin's keys in the chain besides its type and capabilities.
	Entry map[string]json.RawMessage
	// StateDir has a directory of each container that the plugin has prepared.
	StateDir string
	Log      *slog.Logger
}

var (
	// ErrNotChained is that the runtime's configuration can't have the plugin, for now.
	ErrNotChained = errors.New("the plugin is in no chain")
	// ErrPending is that a file is not as it is to be.
	ErrPending = errors.New("has yet to be changed")
	// ErrNoDirectory is that a directory of the runtime is not there, and what helps.
	ErrNoDirectory = errors.New("name the runtime's, or make it")
)

func notChained(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrNotChained, fmt.Errorf(format, args...))
}

// Install puts binary and entry in place, in this order, and tells whether it changed
// anything. Where all is in place it changes nothing.
func (n Node) Install(ctx context.Context) (changed bool, err error) {
	unlock, err := n.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	if changed, err = n.installBinary(); err != nil {
		return false, fmt.Errorf("install plugin: %w", err)
	}
	confChanged, err := n.apply(n.toInstall)
	return changed || confChanged, err
}

// Installed returns what differs from what Install leaves, as an error.
func (n Node) Installed() error {
	same, err := n.sameBinary()
	if err == nil && !same {
		err = fmt.Errorf("%s: %w", n.binary(), ErrPending)
	}
	changes, confErr := n.toInstall()
	return errors.Join(err, differ(changes), confErr)
}

// Uninstall takes the entry out of all configurations, and removes the binary once no
// pod needs it any more for its end; until then the error is [ErrInUse].
func (n Node) Uninstall(ctx context.Context) (changed bool, err error) {
	unlock, err := n.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	if changed, err = n.apply(n.toUninstall); err != nil {
		return changed, err
	}
	for _, dir := range []string{n.BinDir, n.ConfDir} { // of an installer that was killed
		if err := os.Remove(filepath.Join(dir, temporaryName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return changed, fmt.Errorf("remove what an installer has left: %w", err)
		}
	}
	if err := n.inUse(); err != nil {
		return changed, err
	}
	switch err := os.Remove(n.binary()); {
	case err == nil:
		n.Log.Info("removed plugin", "binary", n.binary())
		return true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return changed, fmt.Errorf("remove plugin: %w", err)
	}
	return changed, nil
}

// Uninstalled returns what Uninstall has left, as an error.
func (n Node) Uninstalled() error {
	changes, err := n.toUninstall()
	if err = errors.Join(differ(changes), err); err != nil {
		return err
	}
	if _, err := os.Lstat(n.binary()); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s: %w", n.binary(), ErrPending), err)
	}
	return nil
}

// change is a file that is to be different.
type change struct {
	path string
	was  []byte // what it had when this was decided; nil: nothing, or it is removed whatever it has
	to   []byte // nil: it is removed
	mode fs.FileMode
}

func differ(changes []change) error {
	var errs []error
	for _, c := range changes {
		errs = append(errs, fmt.Errorf("%s: %w", c.path, ErrPending))
	}
	return errors.Join(errs...)
}

// toInstall is what the configuration is to be changed in, so that the plugin is in the
// chain once.
func (n Node) toInstall() ([]change, error) {
	if !n.Chain {
		return nil, nil
	}
	file, to, err := chain(n.ConfDir, n.entry())
	if err != nil {
		return nil, err
	}
	changes, err := n.derived(func(path string) bool { return file.isList() || path != file.derived() })
	if err != nil {
		return nil, err
	}
	put := change{file.path, file.text, to, file.mode}
	if !file.isList() {
		put.path = file.derived()
		if put.was, err = os.ReadFile(put.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read CNI configuration: %w", err)
		}
	}
	if !bytes.Equal(put.was, put.to) {
		changes = append([]change{put}, changes...) // the pod network is never without a list
	}
	return changes, nil
}

// toUninstall takes our entry out of every configuration.
func (n Node) toUninstall() ([]change, error) {
	changes, err := n.derived(func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	files, _ := confs(n.ConfDir) // what can't be read has nothing of ours
	for _, file := range files {
		l, err := parseList(file.text)
		if !file.isList() || err != nil || l.count() == 0 || l.isOursAlone() { // that its owner removes, as what Multus has in the API
			continue
		}
		to, err := l.without()
		if err != nil {
			return nil, fmt.Errorf("take plugin out of %s: %w", file.path, err)
		}
		changes = append(changes, change{file.path, file.text, to, file.mode})
	}
	return changes, nil
}

// derived removes those lists of ours that are made of a .conf.
func (n Node) derived(remove func(path string) bool) ([]change, error) {
	paths, err := filepath.Glob(filepath.Join(n.ConfDir, "*"+derivedSuffix))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", n.ConfDir, err)
	}
	var changes []change
	for _, path := range paths {
		if file, err := readConf(path); err == nil && isDerived(path, file.text) && remove(path) {
			changes = append(changes, change{path: path})
		}
	}
	return changes, nil
}

// attempts is how often the configuration may change while it is being changed here.
const attempts = 10

// apply makes changes. Where somebody else changes a file at the same time it decides
// anew, so that nobody's change is undone.
func (n Node) apply(decide func() ([]change, error)) (changed bool, err error) {
	for range attempts {
		changes, err := decide()
		if err != nil || len(changes) == 0 {
			return changed, err
		}
		for _, c := range changes {
			done, err := c.apply()
			if err != nil {
				return changed, fmt.Errorf("change CNI configuration: %w", err)
			}
			if done {
				changed = true
				n.Log.Info("changed CNI configuration", "file", c.path, "deleted", c.to == nil)
			}
		}
	}
	return changed, fmt.Errorf("change CNI configuration: somebody else has changed %s %d times meanwhile", n.ConfDir, attempts)
}

// apply tells whether it did it: not if the file is another one by now.
func (c change) apply() (bool, error) {
	if c.to == nil {
		return true, os.Remove(c.path)
	}
	temporary, err := writeBeside(c.path, c.mode, bytes.NewReader(c.to))
	if err != nil {
		return false, err
	}
	defer os.Remove(temporary) // it has gone if all went well
	now, err := os.ReadFile(c.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || !bytes.Equal(now, c.was) {
		return false, err
	}
	return true, os.Rename(temporary, c.path)
}

// entry is the plugin in the chain: always the same text for the same keys.
func (n Node) entry() []byte {
	// The annotations are how a pod asks for the plugin, and dns is the pod's.
	text := []byte(`{"type": "` + Type + `", "capabilities": {"dns": true, "io.kubernetes.cri.pod-annotations": true}`)
	for _, key := range slices.Sorted(maps.Keys(n.Entry)) {
		text = fmt.Appendf(text, ", %q: %s", key, n.Entry[key])
	}
	return append(text, '}')
}

func (n Node) binary() string { return filepath.Join(n.BinDir, Type) }

// lock keeps another installer away.
func (n Node) lock(ctx context.Context) (unlock func(), err error) {
	var dirs []*os.File
	for _, path := range []string{n.BinDir, n.ConfDir} {
		d, err := os.Open(path)
		if err == nil {
			dirs = append(dirs, d)
			err = statedir.Flock(ctx, d)
		}
		if err != nil {
			closeAll(dirs)
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w", err, ErrNoDirectory)
			}
			return nil, fmt.Errorf("lock directory of CNI: %w", err)
		}
	}
	return func() { closeAll(dirs) }, nil
}
