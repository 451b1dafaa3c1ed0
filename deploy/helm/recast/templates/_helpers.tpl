{{- define "recast.labels" -}}
app.kubernetes.io/name: recast
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "recast.selector" -}}
app.kubernetes.io/name: recast
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "recast.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "recast.databaseSecret" -}}
{{ .Values.database.existingSecret | default (printf "%s-database" .Release.Name) }}
{{- end }}

{{/* All that migrations need: the owner of the tables, and the role to which they grant what workers need. */}}
{{- define "recast.ownerEnvironment" -}}
{{- if ne (empty .Values.database.workerRole) (empty .Values.database.workerSecret) }}
{{- fail "database.workerRole and database.workerSecret go together: a role, and the Secret with the URL that names it" }}
{{- end -}}
{{ include "recast.databaseUrl" (include "recast.databaseSecret" .) }}
{{- with .Values.database.workerRole }}
- name: RECAST_WORKER_ROLE
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "recast.databaseUrl" -}}
- name: RECAST_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: url
{{- end }}

{{/* What api and worker are both told. */}}
{{- define "recast.environment" -}}
{{- with .Values.signing.existingSecret }}
- name: RECAST_SIGNING_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: key
{{- end }}
- name: RECAST_STORE_URL
  value: {{ required "store.url must say where the objects go" .Values.store.url | quote }}
{{- range $name, $value := .Values.store.environment }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if has $name (list "database_url" "signing_key" "worker_role" "worker_role_password") }}
{{- fail (printf "settings.%s has a place of its own, where no secret stands in the manifests: database or signing" $name) }}
{{- end }}
- name: RECAST_{{ upper $name }}
  value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ $value | toJson | quote }}{{ end }}
{{- end }}
{{- if .Values.traces.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.traces.endpoint | quote }}
{{- end }}
{{- end }}

{{- define "recast.environmentFrom" -}}
{{- if . }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}

{{/* What a pod may do: nothing but compute, read its image, and write to its own scratch directories. */}}
{{- define "recast.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  {{- .seccompProfile | default (dict "type" "RuntimeDefault") | toYaml | nindent 2 }}
{{- with .appArmorProfile }}
appArmorProfile:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "recast.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "recast.scratch" -}}
- name: data
  emptyDir:
    sizeLimit: {{ . }}
- name: tmp
  emptyDir: {}
{{- end }}

{{- define "recast.mounts" -}}
- name: data
  mountPath: /var/lib/recast
- name: tmp
  mountPath: /tmp
{{- end }}
