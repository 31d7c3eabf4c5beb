package serve

import "sync"

// notes are what is to be done after the guest has its answer. To keep a status, to wake
// who reads it and to write a line of the log takes longer than the answer, and takes
// the processor that the guest needs to read it and to ask again.
type notes struct {
	mu  sync.Mutex
	all []func()
}

// Later has a note of a message taken once the guest is quiet, or somebody asks for what
// the server knows. The note may use the message.
func (s *Server) Later(note func()) {
	s.notes.mu.Lock()
	defer s.notes.mu.Unlock()
	s.notes.all = append(s.notes.all, note)
}

// CatchUp takes the notes that are due, in their order. Notes must not call it.
func (s *Server) CatchUp() {
	defer s.lines.buffer()()
	s.notes.mu.Lock()
	defer s.notes.mu.Unlock()
	for _, note := range s.notes.all {
		note()
	}
	clear(s.notes.all)
	s.notes.all = s.notes.all[:0]
}
