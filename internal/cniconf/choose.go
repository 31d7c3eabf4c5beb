package cniconf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	listSuffix = ".conflist"
	// derivedSuffix ends the names of the lists that are made of a .conf. 10-x.conf gives
	// 10-x-virt-launcher-net.conflist, which is the one before it by name.
	derivedSuffix = "-" + Type + listSuffix
	maxConf       = 2 << 20 // what containerd reads
)

// versions of CNI's specification in which a plugin can follow another one that the plugin
// itself speaks.
var versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// conf is a file of the configuration directory.
type conf struct {
	path string // with symbolic links resolved
	text []byte
	mode fs.FileMode
	// target is where a link leads that is not there: for the runtime it may be, where
	// this process sees the directory alone.
	target string
}

func (c conf) isList() bool { return strings.HasSuffix(c.path, listSuffix) }

// derived is the path of the list that is made of a .conf.
func (c conf) derived() string {
	return strings.TrimSuffix(c.path, filepath.Ext(c.path)) + derivedSuffix
}

// confs reads the files of the configuration directory in the runtime's order, by name.
// Those that are derived are not among them. The errors are of what can't be read.
func confs(dir string) ([]conf, []error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, []error{err}
	}
	var all []conf
	var errs []error
	for _, e := range entries { // sorted
		name := e.Name()
		if !slices.Contains([]string{".conf", listSuffix, ".json"}, filepath.Ext(name)) {
			continue
		}
		c, err := readConf(filepath.Join(dir, name))
		if target, linkErr := os.Readlink(filepath.Join(dir, name)); linkErr == nil && errors.Is(err, fs.ErrNotExist) {
			c, err = conf{path: filepath.Join(dir, name), target: target}, nil
		}
		switch {
		case errors.Is(err, errDir) || errors.Is(err, fs.ErrNotExist): // a .d directory, or it is gone just now
		case err != nil:
			errs = append(errs, err)
		case !isDerived(name, c.text):
			all = append(all, c)
		}
	}
	return all, errs
}

// isDerived tells whether a file is a list that was made of a .conf. Another one of such a
// name is its owner's, who has called it after the plugin.
func isDerived(path string, text []byte) bool {
	l, err := parseList(text)
	if !strings.HasSuffix(path, derivedSuffix) || err != nil || len(l.plugins) != 2 {
		return false
	}
	single, entry := l.plugins[0], l.plugins[1]
	made, err := listOf(text[single.start:single.end], text[entry.start:entry.end])
	return err == nil && isOurs(entry) && bytes.Equal(made, text)
}

var errDir = errors.New("it is a directory")

func readConf(path string) (conf, error) {
	c := conf{}
	var err error
	if c.path, err = filepath.EvalSymlinks(path); err != nil {
		return c, err
	}
	f, err := os.Open(c.path)
	if err != nil {
		return c, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return c, err
	case info.IsDir():
		return c, errDir
	case !info.Mode().IsRegular() || info.Size() > maxConf:
		return c, fmt.Errorf("read %s: it is no file of at most %d bytes", path, maxConf)
	}
	c.mode = info.Mode().Perm()
	if c.text, err = io.ReadAll(io.LimitReader(f, maxConf)); err != nil {
		return c, fmt.Errorf("read %s: %w", path, err)
	}
	return c, nil
}

// chain is what the file that the runtime takes is to have, so that the plugin is in its
// chain, and where: in the file itself if it is a list.
func chain(dir string, entry []byte) (file conf, to []byte, err error) {
	files, errs := confs(dir)
	for _, file := range files {
		to, err := file.chained(entry)
		if err == nil || errors.Is(err, ErrNotChained) {
			return file, to, err
		}
		errs = append(errs, err) // CRI-O takes the next one, containerd none
	}
	if len(errs) == 0 {
		return conf{}, nil, notChained("there is no CNI configuration in %s yet", dir)
	}
	return conf{}, nil, notChained("there is no CNI configuration in %s that can be used: %w", dir, errors.Join(errs...))
}

// chained is the text of the list that has the file's plugins, and ours after them.
func (c conf) chained(entry []byte) ([]byte, error) {
	if c.target != "" {
		return nil, notChained("%s leads to %s, which is not there, or not to be seen by the installer: put the file itself in its place, or give the installer its directory, too", c.path, c.target)
	}
	l := list{}
	text, err := c.text, error(nil)
	if !c.isList() {
		if text, err = c.asList(entry); err != nil {
			return nil, fmt.Errorf("%s: %w", c.path, err)
		}
	}
	if l, err = parseList(text); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
	if l.isOursAlone() {
		return nil, notChained("%s has no plugin but %s, which makes no interface: put the one that makes it first, or, if it is for Multus, give the file a name behind that of the runtime's network", c.path, Type)
	}
	// Multus takes the first file that does not begin so for the cluster's network, which
	// it runs itself: a list with Multus in it must not be that.
	if kind := l.plugins[0].kind; !c.isList() && (kind == "multus" || kind == "multus-shim") && !strings.HasPrefix(filepath.Base(c.path), "00-multus") {
		return nil, notChained("%s is Multus': a list beside it would be taken for the cluster's network, so have Multus call the file 00-multus.conf, "+
			"or install the plugin without chaining it, for a NetworkAttachmentDefinition (chain=off)", c.path)
	}
	if !slices.Contains(versions, l.version) {
		return nil, notChained("%s has cniVersion %q: a chain with %s needs one of %s", c.path, l.version, Type, strings.Join(versions, ", "))
	}
	return l.with(entry)
}

// asList is the list made of a single plugin, which a file is that is no .conflist.
func (c conf) asList(entry []byte) ([]byte, error) {
	if _, err := typeOf(c.text); err != nil {
		return nil, err
	}
	return listOf(c.text, entry)
}
