package records

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

var segmentNames = [2]string{"journal-0", "journal-1"}

// survey reads everything in the folder. Errors in the files are in the report, not in the error.
func (d disk) survey() (_ *survey, err error) {
	s := &survey{report: Report{Dir: d.dir}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	names, err := d.runNames()
	if err != nil {
		return nil, err
	}
	var known bool
	var found []Finding
	if s.markFile, s.mark, known, found, err = d.openMark(); err != nil {
		return nil, err
	}
	s.report.Findings = append(s.report.Findings, found...)
	for i, name := range segmentNames {
		if s.segments[i], s.contents[i], found, err = d.openSegment(name); err != nil {
			return nil, err
		}
		s.report.Findings = append(s.report.Findings, found...)
	}
	if s.neverFinished(len(names)) {
		s.fresh = true
		s.report.Findings = nil
		return s, nil
	}
	s.identify(d, known, names)
	if err := s.readRuns(d, names); err != nil {
		return nil, err
	}
	s.readJournal(known)
	s.report.Commits = max(s.last(), s.mark.number)
	return s, nil
}

// runNames lists the runs in the order of their commits, a wider one before those that it has replaced.
func (d disk) runNames() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if _, _, ok := parseRunName(entry.Name()); ok {
			names = append(names, entry.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		firstA, lastA, _ := parseRunName(a)
		firstB, lastB, _ := parseRunName(b)
		return cmp.Or(cmp.Compare(firstA, firstB), cmp.Compare(lastB, lastA))
	})
	return names, nil
}

// neverFinished reports whether the creation was not finished. The first segment is created first, and the mark last.
func (s *survey) neverFinished(runs int) bool {
	if s.markFile != nil || runs > 0 || s.segments[0] == nil && s.segments[1] != nil {
		return false
	}
	for i, segment := range s.segments {
		if segment != nil && (segment.generation != uint64(i+1) || segment.last > 0 || s.contents[i].hasTrailing) {
			return false
		}
	}
	return true
}

// expect adds a finding if the files are not those of the known store; a zero id means that none is known.
func (s *survey) expect(known ID) {
	switch {
	case known == ID{} || !s.fresh && s.store == known:
	case s.fresh:
		s.fresh, s.store = false, known
		s.addFinding("the folder", "all files of the store are gone")
		s.report.EndUnknown = true
	default:
		s.addFinding("the folder", "it holds another store")
	}
}

// identify finds out which store the files belong to.
func (s *survey) identify(d disk, known bool, names []string) {
	switch {
	case known:
		s.store = s.mark.store
	case s.segments[0] != nil && s.segments[0].generation > 0:
		s.store = s.segments[0].store
	case s.segments[1] != nil && s.segments[1].generation > 0:
		s.store = s.segments[1].store
	default:
		for _, name := range names {
			raw := make([]byte, sectorSize)
			if file, err := os.Open(d.path(name)); err == nil {
				_, _ = file.ReadAt(raw, 0)
				_ = file.Close()
			}
			if head, ok := decodeSector(raw, runMagic); ok {
				s.store = head.store
				return
			}
		}
	}
}

func (s *survey) readRuns(d disk, names []string) error {
	next := uint64(1)
	for _, name := range names {
		r, found, err := d.openRun(name, s.store)
		if err != nil {
			return err
		}
		if r.span.last < next {
			s.superseded = append(s.superseded, r)
			continue
		}
		s.report.Findings = append(s.report.Findings, found...)
		if r.span.first > next {
			s.report.Gaps = append(s.report.Gaps, Gap{First: next, Last: r.span.first - 1, Before: r.span.time})
		}
		if r.span.first < next {
			s.addFinding(name, "it overlaps the one before it")
		}
		if len(r.blocks) == 0 && len(found) > 0 {
			s.report.Gaps = append(s.report.Gaps, Gap{First: r.span.first, Last: r.span.last, Before: r.span.time})
		}
		s.runs = append(s.runs, r)
		next = r.span.last + 1
	}
	return nil
}

// readJournal reads the commits of the journal that are in no run, and checks that they are complete.
func (s *survey) readJournal(known bool) {
	var frames []frame
	unread := false
	for i, segment := range s.segments {
		if segment == nil {
			continue
		}
		c := s.contents[i]
		if segment.generation > 0 && segment.store != s.store {
			s.addFinding(segment.name, "it is of another store")
			c = contents{}
		}
		frames = append(append(frames, c.frames...), c.orphans...)
		if c.hasTrailing {
			s.addFinding(segment.name, "it is damaged from byte %d on", sectorSize+c.end)
			unread = unread || len(c.orphans) == 0
		}
	}
	slices.SortFunc(frames, func(a, b frame) int { return cmp.Compare(a.number, b.number) })
	next, before := s.inRuns()+1, time.Time{}
	if len(s.runs) > 0 {
		before = s.runs[len(s.runs)-1].span.time
	}
	for _, f := range frames {
		if f.number < next {
			continue
		}
		if f.number > next {
			s.report.Gaps = append(s.report.Gaps, Gap{First: next, Last: f.number - 1, After: before, Before: f.time})
		}
		s.journal = append(s.journal, f)
		next, before = f.number+1, f.time
	}
	if s.mark.number >= next {
		s.report.Gaps = append(s.report.Gaps, Gap{First: next, Last: s.mark.number, After: before})
	}
	// The frame after a damaged one has a number if it can be read; otherwise only the mark may know how many there were.
	s.report.EndUnknown = unread && s.mark.number <= s.last()
	damaged := slices.ContainsFunc(s.report.Findings, func(f Finding) bool { return strings.HasPrefix(f.File, "journal-") })
	s.report.EndUnknown = s.report.EndUnknown || !known && damaged
}
