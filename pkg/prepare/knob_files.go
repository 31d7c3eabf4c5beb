package prepare

import (
	"os"
	"strings"
)

// knobFiles are the open files of the switches that this process may change, by
// their names. An open file of /proc/sys/net stays with the network namespace in
// which it was opened.
type knobFiles map[string]*os.File

// openKnobs opens those of the network namespace of the calling thread. What can't
// be opened is not looked at.
func openKnobs() knobFiles {
	files := knobFiles{}
	knobs, _, err := readKnobs()
	if err != nil {
		return files
	}
	for name := range knobs {
		if f, err := os.Open(knobPath(name)); err == nil {
			files[name] = f
		}
	}
	return files
}

// read returns the values. A switch that can't be read any more, since its module
// is gone, has none.
func (k knobFiles) read() map[string]string {
	values := map[string]string{}
	for name, f := range k {
		var b [16]byte
		if n, _ := f.ReadAt(b[:], 0); n > 0 {
			values[name] = strings.TrimSpace(string(b[:n]))
		}
	}
	return values
}

func (k knobFiles) close() {
	for _, f := range k {
		f.Close()
	}
}
