-- How often are a seller's orders sent back or cancelled? Return rate: orders now Returned of those now Delivered or
-- Returned. Cancellation rate: orders now Cancelled of all. Paid or not, each order counts once for each of its sellers.
WITH counted AS (
    SELECT f."SellerID" AS seller_id,
           count(DISTINCT f."OrderID") AS orders,
           count(DISTINCT f."OrderID") FILTER (WHERE st."StatusName" = 'Delivered') AS delivered,
           count(DISTINCT f."OrderID") FILTER (WHERE st."StatusName" = 'Returned') AS returned,
           count(DISTINCT f."OrderID") FILTER (WHERE st."StatusName" = 'Cancelled') AS cancelled
    FROM gold."FactSales" f
    JOIN gold."DimOrderStatus" st ON st."StatusID" = f."StatusID"
    GROUP BY f."SellerID"
)
SELECT c.seller_id, coalesce(s."SellerName", '(unknown)') AS seller, orders, delivered, returned, cancelled,
       round(100.0 * returned / nullif(delivered + returned, 0), 2) AS return_percent,
       round(100.0 * cancelled / orders, 2) AS cancellation_percent
FROM counted c
LEFT JOIN gold."DimSeller" s ON s."SellerID" = c.seller_id
ORDER BY return_percent DESC NULLS LAST, cancellation_percent DESC, c.seller_id;
