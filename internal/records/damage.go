package records

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
)

// Report is what a look at a store's files has found.
type Report struct {
	// Dir is the store's folder.
	Dir string
	// Findings are what is wrong, none if nothing is.
	Findings []Finding
	// Gaps are commits that are nowhere any more.
	Gaps []Gap
	// EndUnknown says that the newest commits may be missing too, and nothing says how many.
	EndUnknown bool
	// Commits is the number of the newest commit that is known of; Records is how many records there are.
	Commits uint64
	Records int
}

// Finding is one thing that is wrong with a file.
type Finding struct {
	File string
	// What is half a sentence, as in "its header is damaged".
	What string
	// Keys are the records that stood in what is damaged; nil if there were none. Older ones of the same keys may be there.
	Keys *Keys
}

// Keys are some records that follow each other.
type Keys struct {
	// First and Last are keys of theirs, or, with Count zero, the one before them, and nothing.
	First, Last string
	Count       int
}

// Gap is commits that follow each other. After and Before are when the one before them and the one after them were; zero if nothing
// says.
type Gap struct {
	First, Last   uint64
	After, Before time.Time
}

// Damaged reports whether anything is wrong; Lossy whether records are gone with it.
func (r *Report) Damaged() bool { return len(r.Findings) > 0 || len(r.Gaps) > 0 }

// Lossy reports whether records are gone.
func (r *Report) Lossy() bool {
	for _, finding := range r.Findings {
		if finding.Keys != nil {
			return true
		}
	}
	return len(r.Gaps) > 0 || r.EndUnknown
}

// Sentences say what is wrong, one each.
func (r *Report) Sentences() []string {
	var all []string
	for _, finding := range r.Findings {
		all = append(all, fmt.Sprintf("%s: %s", finding.File, finding.What))
	}
	for _, gap := range r.Gaps {
		if gap.First == gap.Last {
			all = append(all, fmt.Sprintf("commit %d is missing", gap.First))
			continue
		}
		all = append(all, fmt.Sprintf("commits %d to %d are missing", gap.First, gap.Last))
	}
	return all
}

// DamagedError refuses a store that is damaged.
type DamagedError struct{ Report *Report }

// Error says what is wrong and what to do.
func (e *DamagedError) Error() string {
	sentences := e.Report.Sentences()
	more := ""
	if len(sentences) > 1 {
		more = fmt.Sprintf(", and %d more", len(sentences)-1)
	}
	return fmt.Sprintf("the store %s is damaged (%s%s); \"mammoth store check --dir %s\" lists what is wrong, a backup or \"mammoth store repair\" is the way on, and what runs on the nodes goes on running meanwhile",
		e.Report.Dir, sentences[0], more, e.Report.Dir)
}

// Unwrap is the error's class.
func (e *DamagedError) Unwrap() error { return errdefs.ErrDataLoss }

// errDamaged is what reading ends with when a file changed after it was opened.
var errDamaged = fmt.Errorf("stop the daemon, and look at its store with \"mammoth store check\": %w", errdefs.ErrDataLoss)

// survey is all that a store's folder holds, whole or not.
type survey struct {
	report Report
	store  ID
	mark   mark
	// runs are in the order of their commits, and do not overlap; covered are those that a wider one has replaced.
	runs    []*run
	covered []*run
	// journal holds the commits that are in no run, by number; contents is what each segment has.
	segments [2]*segment
	contents [2]contents
	journal  []frame
	markFile *os.File
	// fresh says that there is no store yet, or one that was never finished.
	fresh bool
}

func (s *survey) bad(file, format string, arguments ...any) {
	s.report.Findings = append(s.report.Findings, Finding{File: file, What: fmt.Sprintf(format, arguments...)})
}

// close lets go of every file.
func (s *survey) close() error {
	var failures []error
	for _, r := range slices.Concat(s.runs, s.covered) {
		failures = append(failures, r.file.Close())
	}
	for _, segment := range s.segments {
		if segment != nil {
			failures = append(failures, segment.file.Close())
		}
	}
	if s.markFile != nil {
		failures = append(failures, s.markFile.Close())
	}
	return errors.Join(failures...)
}

// last is the newest commit that is there without a gap before it.
func (s *survey) last() uint64 {
	last := s.inRuns()
	for _, f := range s.journal {
		if f.number == last+1 {
			last = f.number
		}
	}
	return last
}

// inRuns is the newest commit that is in a run.
func (s *survey) inRuns() uint64 {
	if len(s.runs) == 0 {
		return 0
	}
	return s.runs[len(s.runs)-1].span.last
}
