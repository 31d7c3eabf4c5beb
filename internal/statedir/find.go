// Package statedir is about the directory in which the state of a pod is kept:
// whose network namespace it is, who is at work there, and how to read what is in
// it, of which nothing is taken on trust.
package statedir

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxRecord bounds a record: a pod has a few routes of some hundred bytes each.
const MaxRecord = 4 << 20

// Locate identifies the network namespace at path netns, the calling thread's if it is
// empty, and returns the directory that has its state: of dir; if dir is empty, of
// preset, where a namespace that is named has a directory of its own.
func Locate(netns, dir, preset string) (string, Namespace, error) {
	ns, err := Of(netns)
	if err != nil {
		return "", ns, fmt.Errorf("enter network namespace %s: %w", netns, err)
	}
	dir, err = Find(cmp.Or(dir, preset), ns, dir == "" && netns != "")
	return dir, ns, err
}

// Find returns the directory that the namespace has its state in: base, or one of
// its own below it. The latter if it is there, if apart wishes so, or if base has
// records of another namespace, which may still live. Where base has a record of
// the namespace itself, it is base in any case.
func Find(base string, ns Namespace, apart bool) (string, error) {
	ns.Cookie = 0 // so that the answer is the same for who can't know it
	own := filepath.Join(base, ns.dirName())
	ours, others, err := whose(base, ns)
	if err != nil {
		return "", err
	}
	if ours {
		return base, nil
	}
	switch info, err := os.Lstat(own); {
	case err == nil && !info.IsDir():
		return "", fmt.Errorf("find state directory: %s is not a directory: remove it", own)
	case err == nil:
		return own, nil
	case !isAbsent(err):
		return "", fmt.Errorf("find state directory: %w", err)
	}
	if apart || others {
		return own, nil
	}
	return base, nil
}

// isAbsent tells whether err is that there is no such file, nor can be.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// whose tells whether dir has records of the namespace, and of others that may
// still live.
func whose(dir string, ns Namespace) (ours, others bool, err error) {
	paths, err := Records(dir)
	for _, path := range paths {
		of, ok := recorded(path)
		ours = ours || ok && of.Same(ns)
		others = others || ok && !of.Same(ns) && !of.Gone(ns)
	}
	return ours, others, err
}

// IsOfAnother tells whether what dir has recorded of an interface is of another namespace,
// and nothing of this one.
func IsOfAnother(dir, name string, ns Namespace) bool {
	own, err := Find(dir, ns, false)
	if err != nil {
		return false
	}
	if of, ok := recorded(filepath.Join(own, name+".json")); ok && of.Same(ns) {
		return false
	}
	of, ok := recorded(filepath.Join(dir, name+".json"))
	return ok && !of.Same(ns)
}

// Records returns the paths of what may be records in dir; none if there is no dir.
func Records(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !isAbsent(err) {
		return nil, &UnusableError{"list records", err}
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// recorded returns the namespace that a record is of, if it is one.
func recorded(path string) (Namespace, bool) {
	b, err := ReadFile(path, MaxRecord)
	if err != nil {
		return Namespace{}, false // whoever needs it says why
	}
	var r struct{ Namespace Namespace }
	err = json.Unmarshal(b, &r)
	return r.Namespace, err == nil && r.Namespace != Namespace{}
}
