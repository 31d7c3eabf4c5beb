package prestart

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
)

// The files in [Hook.OutputDir]. Each is whole when it appears, for all to read.
// The NICsFile comes last: who sees it, sees the others. A VMM that can't have
// the NICs as they are gets no file; the log says why. They say what is so until
// the pod is restored.
const (
	NICsFile            = "nics.json"             // {"interfaces": […]}: what Prepare returns, and Serve takes
	InterfacesFile      = "interfaces.xml"        // [domain.Interfaces]: for the <devices> of a libvirt domain
	QEMUFile            = "qemu.args"             // [domain.QEMUArgs], one a line
	CloudHypervisorFile = "cloud-hypervisor.args" // [domain.CloudHypervisorArgs], one a line
	FirecrackerFile     = "firecracker.json"      // [domain.FirecrackerConfig]: part of its configuration file
)

// maxFile is more than any of the files has.
const maxFile = 1 << 20

var allFiles = []string{NICsFile, InterfacesFile, QEMUFile, CloudHypervisorFile, FirecrackerFile}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, otherErr := os.Stat(b)
	return err == nil && otherErr == nil && os.SameFile(x, y)
}

// canHandOver makes the output directory and reports why nothing can be written
// there. It returns the files that are there already.
func (h Hook) canHandOver() (files map[string][]byte, err error) {
	if h.OutputDir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(h.OutputDir, 0o755); err != nil {
		return nil, fmt.Errorf("make output directory: %w", err)
	}
	if sameFile(h.OutputDir, h.StateDir) { // where a nics.json is the record of an interface
		return nil, fmt.Errorf("write to output directory: %s is the state directory, which is for records only: choose another", h.OutputDir)
	}
	if err := h.removeUnfinished(); err != nil {
		return nil, err
	}
	unlock, _ := h.lockOutput(unix.LOCK_SH)
	defer unlock()
	f, err := os.CreateTemp(h.OutputDir, writable+"*") // some file systems refuse that, though all may write
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return nil, fmt.Errorf("write to output directory: %w", err)
	}
	files = map[string][]byte{}
	for _, name := range allFiles {
		path := filepath.Join(h.OutputDir, name)
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			return nil, fmt.Errorf("write to output directory: %s is a directory: remove it", path)
		}
		text, err := statedir.ReadFile(path, maxFile)
		switch {
		case err == nil:
			files[name] = text
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, statedir.ErrUnfit): // none, or none of ours
		default:
			return nil, fmt.Errorf("read output directory: %w", err)
		}
	}
	return files, nil
}

// handOver writes what a launcher needs to know of the prepared interfaces, which are
// these NICs.
func (h Hook) handOver(prepared []Interface, nics []domain.NIC) error {
	if h.OutputDir == "" {
		return nil
	}
	if len(prepared) == 0 { // the last one was unplugged
		return h.takeBack(nil)
	}
	for _, f := range []struct {
		name string
		text func(...domain.NIC) ([]byte, error)
	}{
		{InterfacesFile, domain.Interfaces},
		{QEMUFile, lines(domain.QEMUArgs)},
		{CloudHypervisorFile, lines(domain.CloudHypervisorArgs)},
		{FirecrackerFile, domain.FirecrackerConfig},
	} {
		text, err := f.text(nics...)
		if err != nil {
			h.Log.Info("left out a VMM's file: the VMM does not support these NICs", "file", f.name, "error", err)
			if err := h.remove(f.name); err != nil {
				return err
			}
			continue
		}
		if err := h.write(f.name, text); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(interfaces{prepared}, "", "  ")
	if err != nil {
		return fmt.Errorf("write NICs: %w", err)
	}
	return h.write(NICsFile, append(text, '\n'))
}

// handOver writes what is so now.
func (s *Session) handOver() error {
	s.files.Lock()
	defer s.files.Unlock()
	return s.hook.handOver(s.Interfaces(), s.NICs())
}

// portsChanged writes the files again once a prepare has shared ports otherwise.
func (s *Session) portsChanged() {
	if s.hook.OutputDir == "" {
		return
	}
	if err := s.handOver(); err != nil {
		s.hook.Log.Warn("can't write the changed ports to the output directory", "error", err)
		return
	}
	s.hook.Log.Info("wrote the changed ports to the output directory", "dir", s.hook.OutputDir)
}

// lines has each argument on a line of its own, for mapfile -t or xargs -d '\n'.
func lines(args func(...domain.NIC) ([]string, error)) func(...domain.NIC) ([]byte, error) {
	return func(nics ...domain.NIC) ([]byte, error) {
		list, err := args(nics...)
		if err != nil {
			return nil, err
		}
		return []byte(strings.Join(list, "\n") + "\n"), nil
	}
}

func (h Hook) write(name string, text []byte) error {
	unlock, _ := h.lockOutput(unix.LOCK_SH)
	defer unlock()
	err := renameio.WriteFile(filepath.Join(h.OutputDir, name), text, 0o644,
		renameio.WithTempDir(h.OutputDir), renameio.IgnoreUmask())
	if err != nil {
		return fmt.Errorf("write to output directory: %w", err)
	}
	return nil
}

func (h Hook) remove(name string) error {
	if err := os.Remove(filepath.Join(h.OutputDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove from output directory: %w", err)
	}
	return nil
}

// takeBack undoes handOver: there are the files that were there before. First goes
// what says that all are there.
func (h Hook) takeBack(before map[string][]byte) error {
	if h.OutputDir == "" {
		return nil
	}
	var errs []error
	for _, name := range allFiles {
		errs = append(errs, h.remove(name))
	}
	for _, name := range slices.Backward(allFiles) {
		if text, was := before[name]; was {
			errs = append(errs, h.write(name, text))
		}
	}
	return errors.Join(errs...)
}
