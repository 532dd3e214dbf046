package gateway_test

// collections are those of the providers that are known.
var collections = []collection{
	{path: "/v1/files", body: `{"purpose":"x"}`, id: "file-%d", made: `{"id": %q, "object": "file"}`, list: "data", named: "id", below: "/content", uses: []use{
		{"/v1/responses", `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":%q}]}]}`},
		{"/v1/responses", `{"model":"m","input":[{"role":"user","content":[{"type":"input_image","fi\u006ce_ID":%q}]}]}`},
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["%s"]}}]}`},
		{"/v1/responses", `{"model":"m","prompt":{"id":"pmpt_1","variables":{"x":{"type":"input_file","file_id":%q}}}}`},
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":%q}}]}]}`},
		{"/v1/messages", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":%q}}]}]}`},
		{"/v1/batches", `{"input_file_id":%q,"endpoint":"/v1/responses"}`},
		{"/v1/fine_tuning/jobs", `{"training_file":%q,"model":"m"}`},
		{"/v1/threads", `{"messages":[{"role":"user","content":"x","attachments":[{"file_id":%q}]}]}`},
		{"/v1/vector_stores", `{"file_ids":[%q]}`},
		{"/v1/evals", `{"data_source":{"type":"jsonl","source":{"type":"file_id","id":%q}}}`},
	}},
	{path: "/v1/responses", body: respond, id: "resp_%d", made: `{"id": %q, "object": "response", "output": [], "usage": {"input_tokens": 1, "output_tokens": 1}}`,
		named: "id", list: "data", below: "/input_items", uses: []use{
			{"/v1/responses", `{"model":"m","input":"hi","previous_response_id":%q}`},
			{"/v1/responses/input_tokens", `{"model":"m","input":"hi","previous_response_id":%q}`},
			{"/v1/responses", `{"model":"m","input":"hi","previous_re\u017fponse_id":%q}`},
			{"/v1/responses/%s/cancel", `{}`},
		}},
	{path: "/v1/conversations", body: `{}`, id: "conv_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/items", uses: []use{
		{"/v1/responses", `{"model":"m","input":"hi","conversation":%q}`},
		{"/v1/responses", `{"model":"m","input":"hi","conversation":{"id":%q}}`},
		{"/v1/conversations/%s/items", `{"items":[]}`},
	}},
	{path: "/v1/chat/completions", body: `{"model":"m","messages":[],"store":true}`, id: "chatcmpl-%d", named: "id", list: "data", below: "/messages",
		made: `{"id": %q, "object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}`},
	{path: "/v1/threads", body: `{}`, id: "thread_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/messages", uses: []use{
		{"/v1/threads/%s/messages", `{"role":"user","content":"x"}`}, {"/v1/threads/%s/runs", `{"stream":true}`},
	}},
	{path: "/v1/assistants", body: `{"model":"m"}`, id: "asst_%d", made: `{"id": %q}`, named: "id", list: "data", uses: []use{
		{"/v1/threads/runs", `{"assistant_id":%q}`}, {"/v1/assistants/%s", `{"name":"x"}`},
	}},
	{path: "/v1/vector_stores", body: `{}`, id: "vs_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/files", uses: []use{
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"file_search","vector_store_ids":["%s"]}]}`},
		{"/v1/assistants", `{"model":"m","tool_resources":{"file_search":{"vector_store_ids":["%s"]}}}`},
		{"/v1/vector_stores/%s/search", `{"query":"x"}`},
	}},
	{path: "/v1/containers", body: `{"name":"x"}`, id: "cntr_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/files/cfile_1/content", uses: []use{
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"code_interpreter","container":%q}]}`},
		{"/v1/messages", `{"model":"m","max_tokens":9,"messages":[],"container":%q}`},
		{"/v1/messages", `{"model":"m","max_tokens":9,"messages":[],"container":{"id":%q,"skills":[{"type":"anthropic","skill_id":"pptx"}]}}`},
	}},
	{path: "/v1/batches", body: `{"endpoint":"/v1/responses"}`, id: "batch_%d", made: `{"id": %q}`, named: "id", list: "data", uses: []use{{"/v1/batches/%s/cancel", `{}`}}},
	{path: "/v1/messages/batches", body: `{"requests":[]}`, id: "msgbatch_%d", made: `{"id": %q}`, named: "id", list: "data", uses: []use{{"/v1/messages/batches/%s/cancel", `{}`}}},
	{path: "/v1/batch/jobs", body: `{"model":"m"}`, id: "job-%d", made: `{"id": %q}`, named: "id", list: "data", uses: []use{{"/v1/batch/jobs/%s/cancel", ``}}},
	{path: "/v1/fine_tuning/jobs", body: `{"model":"m"}`, id: "ftjob-%d", made: `{"id": %q}`, named: "id", list: "data", below: "/events", uses: []use{{"/v1/fine_tuning/jobs/%s/cancel", ``}}},
	{path: "/v1/evals", body: `{"name":"x"}`, id: "eval_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/runs"},
	{path: "/v1/videos", body: `{"model":"m","seconds":"4"}`, id: "video_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/content", uses: []use{
		{"/v1/videos/%s/remix", `{"model":"m","seconds":"4"}`}, {"/v1/videos/edits", `{"model":"m","seconds":"4","video":{"id":%q}}`},
	}},
	{path: "/v1/videos", create: "/v1/videos/generations", body: `{"model":"m","duration":4}`, id: "req-%d", made: `{"request_id": %q}`, named: "id", list: "data"},
	{path: "/v1/skills", body: `{}`, id: "skill_%d", made: `{"id": %q}`, named: "id", list: "data", below: "/versions", uses: []use{
		{"/v1/messages", `{"model":"m","max_tokens":9,"messages":[],"container":{"skills":[{"type":"custom","skill_id":%q}]}}`},
	}},
	{path: "/v1/conversations", body: `{"inputs":"x","model":"m"}`, id: "c-%d", made: `{"conversation_id": %q, "outputs": []}`, named: "id", below: "/history", uses: []use{ // Mistral's
		{"/v1/conversations/%s", `{"inputs":"y"}`},
	}},
	{path: "/v1/agents", body: `{"model":"m","name":"x"}`, id: "ag_%d", made: `{"id": %q}`, named: "id", uses: []use{
		{"/v1/agents/completions", `{"agent_id":%q,"messages":[]}`}, {"/v1/agents", `{"model":"m","handoffs":[%q]}`},
	}},
	{path: "/v1/datasets", body: `{}`, id: "ds-%d", made: `{"id": %q}`, named: "id", list: "datasets", uses: []use{{"/v1/embed-jobs", `{"dataset_id":%q}`}}},
	{path: "/v1/embed-jobs", body: `{}`, id: "ej-%d", made: `{"job_id": %q}`, named: "job_id", list: "embed_jobs"},
	{path: "/v1beta/files", create: "/upload/v1beta/files", body: `{"file":{}}`, id: "files/f%d", made: `{"file": {"name": %q}}`, named: "name", list: "files", uses: []use{
		{"/v1beta/models/g:generateContent", `{"contents":[{"parts":[{"fileData":{"fileUri":"https://generativelanguage.googleapis.com/v1beta/%s"}}]}]}`},
		{"/v1beta/models/g:generateContent", `{"contents":[{"parts":[{"file_data":{"file_uri":"HTTPS://other.googleapis.com/v1beta//%s?alt=media"}}]}]}`},
		{"/v1beta/interactions", `{"model":"m","input":[{"type":"document","uri":"https://generativelanguage.googleapis.com/v1beta/%s"}]}`},
	}},
	{path: "/v1beta/cachedContents", body: `{"model":"m"}`, id: "cachedContents/c%d", made: `{"name": %q}`, named: "name", list: "cachedContents", uses: []use{
		{"/v1beta/models/g:generateContent", `{"contents":[],"cachedContent":%q}`},
		{"/v1beta/models/g:generateContent", `{"contents":[],"cached_content":"projects/p/locations/l/%s"}`},
	}},
	{path: "/v1beta/models/veo/operations", create: "/v1beta/models/veo:predictLongRunning", body: `{}`, id: "models/veo/operations/o%d", made: `{"name": %q}`, named: "name", list: "operations", uses: []use{
		{"/v1/projects/p/locations/l/publishers/google/models/veo:fetchPredictOperation", `{"operationName":"projects/p/locations/l/publishers/google/%s"}`},
		{"/v1beta/models/veo:fetchPredictOperation", `{"operation_n\u0061me":%q}`},
	}},
	{path: "/v1beta/batches", create: "/v1beta/models/g:batchGenerateContent", body: `{}`, id: "batches/b%d", made: `{"name": %q}`, named: "name", list: "operations"},
	{path: "/v1beta/fileSearchStores", body: `{}`, id: "fileSearchStores/s%d", made: `{"name": %q}`, named: "name", list: "fileSearchStores", below: "/documents", uses: []use{
		{"/v1beta/models/g:generateContent", `{"contents":[],"tools":[{"fileSearch":{"fileSearchStoreNames":[%q]}}]}`},
	}},
	{path: "/v1beta/interactions", body: `{"model":"m","input":"x"}`, id: "in-%d", made: `{"id": %q, "model": "m", "usage": {"total_input_tokens": 1, "total_output_tokens": 1}}`, named: "id", list: "data", uses: []use{
		{"/v1beta/interactions", `{"model":"m","input":"y","previous_interaction_id":%q}`},
	}},
	{path: "/v1/collections", body: `{"collection_name":"x"}`, id: "collection_%d", made: `{"collection_id": %q}`, named: "collection_id", list: "collections", below: "/documents", uses: []use{ // xAI's
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"file_search","vector_store_ids":["%s"]}]}`},
		{"/v1/responses", `{"model":"m","input":"hi","tools":[{"type":"collections_search","collection_ids":["%s"]}]}`},
		{"/v1/documents/search", `{"query":"x","source":{"collection_ids":["%s"]}}`},
	}},
	{path: "/v1/finetuning/finetuned-models", body: `{"name":"x"}`, id: "00000000-0000-4000-8000-%012d", made: `{"finetuned_model": {"id": %q}}`, named: "id", list: "finetuned_models", uses: []use{ // Cohere's
		{"/v2/chat", `{"model":"%s-ft","messages":[{"role":"user","content":"hi"}]}`}, {"/v1/chat", `{"model":%q,"message":"hi"}`},
		{"/v2/rerank", `{"model":"%s-FT","query":"x","documents":["y"]}`},
	}},
	{path: "/openai/files", body: `{}`, id: "assistant-%d", made: `{"id": %q}`, named: "id", list: "data", below: "/content"}, // Azure's
	{path: "/files", body: `{}`, id: "file-%d", made: `{"id": %q}`, named: "id", list: "data", below: "/content"},
}
