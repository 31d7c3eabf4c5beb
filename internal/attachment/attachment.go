// Package attachment is what the CNI plugin leaves for the node agent: for each NIC that
// it has prepared, a file in the directory of the NIC's container. The agent learns of
// them by the plugin's word and, after a restart, from these files alone.
//
// A NIC that the plugin is still preparing has a pending file, which is for the plugin
// alone: one that was killed is undone by it.
package attachment

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

const (
	// suffix ends the name of a file, which is the interface's. Records end in .json.
	suffix = ".attachment"
	// pendingSuffix ends that of a NIC that is being prepared.
	pendingSuffix = ".pending"
	// maxFile bounds a file: options are some texts of the pod's annotation.
	maxFile = 1 << 20
	// SocketName is the name of the agent's socket in the directory of all.
	SocketName = "node.sock"
)

// Attachment is one NIC of a VM pod, as CNI calls it: an interface of a container.
type Attachment struct {
	ContainerID string `json:"containerID"` // of the pod's sandbox
	Interface   string `json:"interface"`   // the pod's, that the VM's NIC is made of
	Netns       string `json:"netns"`       // the path of the pod's network namespace
	// IfName and Network are what CNI calls the attachment: CNI_IFNAME, which need not be
	// the interface's name, and the name of the network configuration.
	IfName  string    `json:"ifName,omitempty"`
	Network string    `json:"network,omitempty"`
	Since   time.Time `json:"since"` // when it was attached first
	Pod     Pod       `json:"pod"`
	// Options are all that are not the default, as [settings.Options.Set] takes them, with
	// the pod's DNS and host name among them.
	Options map[string]json.RawMessage `json:"options"`
}

// Pod names the pod; empty where the runtime did not.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
}

// String is as kubectl has it: namespace/name.
func (p Pod) String() string {
	if p == (Pod{}) {
		return "(unnamed)"
	}
	return p.Namespace + "/" + p.Name
}

// Dir is the directory of a container's state below that of all: records, attachments,
// and what the agent keeps.
func Dir(base, containerID string) string { return filepath.Join(base, containerID) }

// Files are what has to be there of a NIC for an agent that starts to serve it: its
// attachment, and its record.
func Files(base, containerID, name string) []string {
	return []string{pathOf(base, containerID, name), filepath.Join(Dir(base, containerID), name+".json")}
}

func pathOf(base, containerID, name string) string {
	return filepath.Join(Dir(base, containerID), name+suffix)
}

func pendingPathOf(base, containerID, name string) string {
	return filepath.Join(Dir(base, containerID), name+pendingSuffix)
}

// Settings are the options that the NIC is prepared and served by.
func (a Attachment) Settings() (settings.Options, error) {
	var o settings.Options
	err := o.Set(a.Options)
	if err != nil { // a plugin of an older version took an alias that no host can have; the NIC has that of its record
		options := maps.Clone(a.Options)
		delete(options, "vmAlias")
		o = settings.Options{}
		err = o.Set(options)
	}
	if err != nil {
		return o, fmt.Errorf("read options of %s of container %s: %w", a.Interface, a.ContainerID, err)
	}
	return o, nil
}

// Write writes the attachment's file, in the place of one that is there.
func (a Attachment) Write(base string) error {
	return a.write(base, pathOf(base, a.ContainerID, a.Interface))
}

// WritePending says that the NIC is being prepared. [Attachment.Confirm] it, or
// [RemovePending].
func (a Attachment) WritePending(base string) error {
	return a.write(base, pendingPathOf(base, a.ContainerID, a.Interface))
}

// Confirm makes what is pending the attachment, in the place of one that is there.
func (a Attachment) Confirm(base string) error {
	err := os.Rename(pendingPathOf(base, a.ContainerID, a.Interface), pathOf(base, a.ContainerID, a.Interface))
	if err != nil {
		return fmt.Errorf("write attachment: %w", err)
	}
	return nil
}

func (a Attachment) write(base, path string) error {
	dir := Dir(base, a.ContainerID)
	err := os.MkdirAll(dir, 0o700)
	var b []byte
	if err == nil {
		b, err = json.MarshalIndent(a, "", "  ")
	}
	if err == nil && len(b) >= maxFile { // the agent would not read it
		err = fmt.Errorf("the options have %d bytes: at most %d can be kept", len(b), maxFile)
	}
	if err == nil {
		err = renameio.WriteFile(path, append(b, '\n'), 0o600, renameio.WithTempDir(dir))
	}
	if err != nil {
		return fmt.Errorf("write attachment: %w", err)
	}
	return nil
}

// Remove removes the attachment's file, and what is pending of it. What is not there is
// no error.
func Remove(base, containerID, name string) error {
	return errors.Join(remove(pathOf(base, containerID, name)), RemovePending(base, containerID, name))
}

// RemovePending removes what is pending alone.
func RemovePending(base, containerID, name string) error {
	return remove(pendingPathOf(base, containerID, name))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove attachment: %w", err)
	}
	return nil
}

// Read reads the attachment of a container's interface; the error wraps [fs.ErrNotExist]
// if there is none.
func Read(base, containerID, name string) (Attachment, error) {
	return read(pathOf(base, containerID, name), containerID, name)
}

func read(path, containerID, name string) (Attachment, error) {
	b, err := statedir.ReadFile(path, maxFile)
	if err != nil {
		return Attachment{}, fmt.Errorf("read attachment: %w", err)
	}
	var a Attachment
	if err := json.Unmarshal(b, &a); err != nil {
		return Attachment{}, fmt.Errorf("read attachment %s: %w", path, err)
	}
	if a.ContainerID != containerID || a.Interface != name || a.Netns == "" {
		return Attachment{}, fmt.Errorf("read attachment %s: it is one of container %q, interface %q, namespace %q", path, a.ContainerID, a.Interface, a.Netns)
	}
	return a, nil
}

// OfContainer reads the attachments of a container, the first attached first. What can't
// be read is in the error, beside the others.
func OfContainer(base, containerID string) ([]Attachment, error) {
	return list(base, containerID, suffix)
}

// PendingOfContainer reads what is pending of a container, as [OfContainer] does.
func PendingOfContainer(base, containerID string) ([]Attachment, error) {
	return list(base, containerID, pendingSuffix)
}

// Names are the interfaces of a container that have an attachment, or a pending one, also
// those of which it can't be read.
func Names(base, containerID string) ([]string, error) {
	attached, err := namesOf(base, containerID, suffix)
	pending, pendingErr := namesOf(base, containerID, pendingSuffix)
	all := slices.Concat(attached, pending)
	slices.Sort(all)
	return slices.Compact(all), errors.Join(err, pendingErr)
}

func namesOf(base, containerID, suffix string) (names []string, err error) {
	entries, err := os.ReadDir(Dir(base, containerID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

func list(base, containerID, suffix string) ([]Attachment, error) {
	names, err := namesOf(base, containerID, suffix)
	if err != nil {
		return nil, err
	}
	var all []Attachment
	var errs []error
	for _, name := range names {
		a, err := read(filepath.Join(Dir(base, containerID), name+suffix), containerID, name)
		if errs = append(errs, err); err == nil {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b Attachment) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Interface, b.Interface))
	})
	return all, errors.Join(errs...)
}

// Containers lists the containers that have a directory; none if there is no directory
// of all.
func Containers(base string) ([]string, error) {
	entries, err := os.ReadDir(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}
