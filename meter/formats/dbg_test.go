package formats_test
import ("testing";"fmt";"strings";"github.com/tallygate/tallygate/meter")
func TestDbg(t *testing.T){
 for _, r := range recordings(t) {
		if r.Status >= 400 || r.Usage == nil || strings.HasSuffix(r.File, ".bin") || r.API == "realtime" || r.API == "batch.results" { continue }
		got, prompt := local(t, r)
		reasoning := r.stated("reasoning")
		output := sum(got, meter.Output)
		if reasoning == 0 { output += sum(got, meter.Reasoning) }
		if want := r.want().output - reasoning; want >= 10 && r.textAnswer() { fmt.Printf("A %-16s %-70.70s %-25.25s %d %d\n", r.group(), r.File, r.Model, want, output) }
		if want := r.want().input + r.want().cached + r.want().written; want >= 8 && r.textPrompt() { fmt.Printf("P %-16s %-70.70s %-25.25s %d %d\n", r.group(), r.File, r.Model, want, prompt) }
 }
}
