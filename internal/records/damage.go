package records

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
)

// Report is the result of an examination of a store's files.
type Report struct {
	// Dir is the store's folder.
	Dir string
	// Findings are the errors that were found.
	Findings []Finding
	// Gaps are missing commits.
	Gaps []Gap
	// EndUnknown is true if the newest commits may also be missing, in an unknown number.
	EndUnknown bool
	// Commits is the number of the newest known commit; Records is the number of records.
	Commits uint64
	Records int
}

// Finding is one error in a file.
type Finding struct {
	File string
	// What is half a sentence, as in "its header is damaged".
	What string
	// Keys are the records in the damaged part; nil if there were none. Older versions of them may exist.
	Keys *Keys
}

// Keys are consecutive records.
type Keys struct {
	// First and Last are their first and last keys; with Count zero, First is the key before them and Last is empty.
	First, Last string
	Count       int
}

// Gap is consecutive missing commits. After and Before are the times of the commits around them; zero if unknown.
type Gap struct {
	First, Last   uint64
	After, Before time.Time
}

// Damaged reports whether there is any error; Lossy whether records are missing.
func (r *Report) Damaged() bool { return len(r.Findings) > 0 || len(r.Gaps) > 0 }

// Lossy reports whether records are missing.
func (r *Report) Lossy() bool {
	for _, finding := range r.Findings {
		if finding.Keys != nil {
			return true
		}
	}
	return len(r.Gaps) > 0 || r.EndUnknown
}

// Sentences describes the errors, one sentence each.
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

// DamagedError is the error of opening a damaged store.
type DamagedError struct{ Report *Report }

// Error describes the first error and what to do.
func (e *DamagedError) Error() string {
	sentences := e.Report.Sentences()
	more := ""
	if len(sentences) > 1 {
		more = fmt.Sprintf(", and %d more", len(sentences)-1)
	}
	return fmt.Sprintf("the store %s is damaged (%s%s); \"mammoth store check --dir %s\" lists what is wrong; restore a backup or run \"mammoth store repair\"; containers on the nodes keep running meanwhile",
		e.Report.Dir, sentences[0], more, e.Report.Dir)
}

// Unwrap is the error's class.
func (e *DamagedError) Unwrap() error { return errdefs.ErrDataLoss }

// errDamaged is the error of a file that changed after it was opened.
var errDamaged = fmt.Errorf("stop the daemon, and look at its store with \"mammoth store check\": %w", errdefs.ErrDataLoss)

// survey is the content of a store's folder, complete or not.
type survey struct {
	report Report
	store  ID
	mark   mark
	// runs are in the order of their commits and do not overlap; superseded are those that a wider one has replaced.
	runs       []*run
	superseded []*run
	// journal has the commits that are in no run, by number; contents is the content of each segment.
	segments [2]*segment
	contents [2]contents
	journal  []frame
	markFile *os.File
	// fresh is true if there is no store yet, or one whose creation was not finished.
	fresh bool
}

func (s *survey) addFinding(file, format string, arguments ...any) {
	s.report.Findings = append(s.report.Findings, Finding{File: file, What: fmt.Sprintf(format, arguments...)})
}

// close closes every file.
func (s *survey) close() error {
	var failures []error
	for _, r := range slices.Concat(s.runs, s.superseded) {
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

// last is the newest commit without a gap before it.
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
