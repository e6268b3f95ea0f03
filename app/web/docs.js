// Swagger UI over this service's own document; nothing is loaded from elsewhere.
window.SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
